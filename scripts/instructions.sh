#!/bin/sh
# Counts the instructions of what runs for every message (crates/core/benches/instructions.rs), in this tree and in another
# commit: the last one when something is changed and not committed, else the one before it.
# usage: scripts/instructions.sh [COMMIT]
set -eu
cd "$(dirname "$0")/.."

say() { echo "instructions: $*" >&2; }

count() { cargo bench --quiet -p poolhouse-core --bench instructions; }

if [ $# != 0 ]; then
    before=$1
elif [ -n "$(git status --porcelain --untracked-files=no)" ]; then
    before=HEAD
else
    before=HEAD~1
fi
before=$(git rev-parse --short "$before^{commit}")

# Both trees are built into one directory, so that what they share is built once.
CARGO_TARGET_DIR=$(mkdir -p "${CARGO_TARGET_DIR:-target}" && cd "${CARGO_TARGET_DIR:-target}" && pwd)
export CARGO_TARGET_DIR
results=$CARGO_TARGET_DIR/instructions
mkdir -p "$results"

say "this tree"
count >"$results/now"

if ! git cat-file -e "$before:crates/core/benches/instructions.rs" 2>/dev/null; then
    say "$before counts none: nothing to compare with"
    cat "$results/now"
    exit 0
fi
if [ ! -s "$results/$before" ]; then
    say "$before"
    tree=$results/tree
    git worktree remove --force "$tree" 2>/dev/null || true
    git worktree add --quiet --detach "$tree" "$before"
    (cd "$tree" && count >"$results/$before.new") || { git worktree remove --force "$tree"; exit 1; }
    git worktree remove --force "$tree"
    mv "$results/$before.new" "$results/$before"
fi

printf '%10s %10s %7s\n' "$before" now change
awk -F '\t' 'NR == FNR { before[$2] = $1; next }
    $2 in before { printf "%10d %10d %+6.1f%%  %s\n", before[$2], $1, ($1 / before[$2] - 1) * 100, $2; next }
    { printf "%10s %10d %7s  %s\n", "", $1, "", $2 }' "$results/$before" "$results/now"
