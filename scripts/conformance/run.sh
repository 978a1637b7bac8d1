#!/bin/sh
# The own test suites of drivers and frameworks, directly and through Poolhouse: fetches them, and compares.
# usage: scripts/conformance/run.sh [--suite NAME] [--only TEXT] [--pooler BINARY]
# Everything it fetches and builds goes to target/conformance, of which `current` has the versions named here.
set -eu
cd "$(dirname "$0")/../.."
scripts/deps.sh build postgres python

# psycopg, pytest and the rest are what the suites run with.
psycopg2=2.9.13
asyncpg=0.32.0
pg8000=1.31.6
sqlalchemy=2.1.9
django=5.2.19
psycopg=3.3.9
home=${CARGO_TARGET_DIR:-target}/conformance
mkdir -p "$home"
home=$(cd "$home" && pwd)

say() { echo "conformance: $*" >&2; }

# A virtual environment that was cut short while it was made lacks the stamp, and is made again.
stamp="$home/fetched-$psycopg2-$asyncpg-$pg8000-$sqlalchemy-$django-$psycopg"
if [ ! -e "$stamp" ]; then
    say "fetching and building the drivers, and the sources that hold their tests"
    rm -rf "$home"
    mkdir -p "$home/sources"
    python3 -m venv "$home/venv"
    pip="$home/venv/bin/pip --disable-pip-version-check --quiet"
    # asyncpg's tests import distro, pg8000's pytz, SQLAlchemy with asyncpg greenlet.
    $pip install setuptools wheel distro pytz pytest pytest-benchmark pytest-mock greenlet \
        "psycopg[binary,pool]==$psycopg"
    $pip download --no-deps --no-binary :all: --dest "$home/sources" "psycopg2==$psycopg2"
    # asyncpg's build needs Cython, which pip may take ready-made; so do others what builds them.
    for suite in "asyncpg==$asyncpg" "pg8000==$pg8000" "sqlalchemy==$sqlalchemy" "django==$django"; do
        $pip download --no-deps --no-binary "${suite%%=*}" --dest "$home/sources" "$suite"
    done
    for suite in "psycopg2-$psycopg2" "asyncpg-$asyncpg" "pg8000-$pg8000" "sqlalchemy-$sqlalchemy" "django-$django"; do
        $pip install "$home/sources/$suite.tar.gz"
        mkdir -p "$home/${suite%%-*}"
    done
    # Only the tests: next to the package's own sources they would import those, which are not built.
    unpack() {
        suite=$1
        shift
        tar -xzf "$home/sources/$suite.tar.gz" -C "$home/${suite%%-*}" --strip-components 1 "$@"
    }
    unpack "psycopg2-$psycopg2" "psycopg2-$psycopg2/tests"
    unpack "asyncpg-$asyncpg" "asyncpg-$asyncpg/tests"
    unpack "pg8000-$pg8000" "pg8000-$pg8000/test" "pg8000-$pg8000/README.md"
    # SQLAlchemy's tests run on its sources, which need no build.
    unpack "sqlalchemy-$sqlalchemy"
    unpack "django-$django" "django-$django/tests"
    : > "$stamp"
fi
exec "$home/venv/bin/python" scripts/conformance/compare.py --home "$home" "$@"
