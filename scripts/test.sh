#!/bin/sh
# All tests on the PostgreSQL of this machine, then those of the protocol again on version 18.
# Arguments go to the first of the two, and leave out the second: scripts/test.sh NAME runs the tests with that name.
set -eu
cd "$(dirname "$0")/.."
scripts/deps.sh build postgres drivers

say() { echo "test: $*" >&2; }

if cargo nextest --version >/dev/null 2>&1; then
    run="cargo nextest run"
else
    run="cargo test"
fi

if [ $# != 0 ]; then
    exec $run "$@"
fi
newer=$(scripts/postgres18.sh)
# nextest does not know the examples in the documentation; cargo test runs them by itself.
[ "$run" = "cargo test" ] || cargo test --quiet --doc
say "everything, on the PostgreSQL of this machine"
$run --no-fail-fast
say "the protocol again, on $("$newer/postgres" --version)"
POSTGRES_BIN=$newer $run --no-fail-fast --test it protocol
