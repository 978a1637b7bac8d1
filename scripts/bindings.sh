#!/bin/sh
# Makes crates/bindgen/bindings/pg_query.rs anew, when Cargo.toml names another version of pg_query, and says the sum of
# its headers for crates/bindgen/src/lib.rs. Needs bindgen's own program and libclang (Debian's libclang-dev).
set -eu
cd "$(dirname "$0")/.."

say() { echo "bindings: $*" >&2; }

if ! bindgen --version >/dev/null 2>&1; then
    say "there is no bindgen: cargo install --locked bindgen-cli"
    exit 1
fi
version=$(cargo metadata --format-version 1 | sed -n 's/.*"name":"pg_query","version":"\([^"]*\)".*/\1/p')
manifest=$(cargo metadata --format-version 1 | tr ',' '\n' | sed -n 's/^"manifest_path":"\(.*\/pg_query-[^"]*\)"$/\1/p')
headers=$(dirname "$manifest")/libpg_query
out=crates/bindgen/bindings/pg_query.rs
{
    echo "// Made by scripts/bindings.sh from the headers of pg_query $version; not written by hand."
    # Tokens and keywords have hundreds of constants, which nobody asks for.
    bindgen --no-layout-tests --allowlist-item '(PgQuery|PG_|pg_query|Postgres|postgres_|StringInfo).*' \
        "$headers/pg_query.h" -- -I "$headers" |
        grep -v -e '^pub const PgQueryToken_' -e '^pub const PgQueryKeywordKind_' -e '^/\* automatically'
} > "$out"
say "$out is made; a build says the sum of the headers, which belongs into crates/bindgen/src/lib.rs"
