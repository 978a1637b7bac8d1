#!/bin/sh
# PostgreSQL's own regression tests, and those of its extensions, directly and through Poolhouse: fetches the source of
# the server that is installed with Debian's tools, builds what the tests load, and compares.
# usage: scripts/conformance/regress.sh [--pool N] [--noise N] [DATABASE...]
# Everything it fetches, builds and writes goes to target/regress, which PostgreSQL's user must be able to reach.
set -eu
cd "$(dirname "$0")/../.."
scripts/deps.sh build postgres python

say() { echo "regress: $*" >&2; }

bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -1)
[ -n "$bin" ] || { say "needs PostgreSQL of Debian's packages, for their source"; exit 1; }
major=$(basename "$(dirname "$bin")")
version=$(dpkg-query -W -f '${Version}' "postgresql-$major")
target=$(cd "${CARGO_TARGET_DIR:-target}" && pwd)
home=$target/regress

if [ ! -e "$home/fetched-$version" ]; then
    say "fetching the source of PostgreSQL $version"
    rm -rf "$home"
    mkdir -p "$home/apt/lists/partial" "$home/apt/cache/archives/partial" "$home/library"
    # Sources are seldom among what apt is set up for, so it gets a setup of its own.
    apt-cache policy "postgresql-$major" |
        awk '$2 ~ /^http/ { split($3, part, "/"); print "deb", $2, part[1], part[2]; print "deb-src", $2, part[1], part[2] }' \
            > "$home/apt/sources.list"
    own="-qq -o Dir::Etc::sourcelist=$home/apt/sources.list -o Dir::Etc::sourceparts=/dev/null
        -o Dir::State::lists=$home/apt/lists -o Dir::Cache=$home/apt/cache -o APT::Sandbox::User=$(id -un)"
    (
        cd "$home"
        apt-get $own update
        apt-get $own --download-only source "postgresql-$major=$version"
        apt-get $own download "postgresql-server-dev-$major=$version"
        mkdir source headers
        tar -xf "postgresql-${major}_"*.orig.tar.* -C source --strip-components 1
        dpkg -x "postgresql-server-dev-$major"_*.deb headers
        include=headers/usr/include/postgresql
        cc -O2 -fPIC -shared -I "$include/$major/server" -I "$include/internal" -o library/regress.so \
            source/src/test/regress/regress.c
        cp "$("$bin/pg_config" --pkglibdir)/refint.so" "$("$bin/pg_config" --pkglibdir)/autoinc.so" library
        rm -rf apt headers ./*.deb ./*.tar.* ./*.dsc
    )
    : > "$home/fetched-$version"
fi
exec python3 scripts/conformance/regress.py --source "$home/source" --library "$home/library" --postgres-bin "$bin" \
    --poolhouse "$target/release/poolhouse" --work "$home" "$@"
