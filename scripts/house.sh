#!/bin/sh
# Prints how the house is built, in figures: the last section of docs/architecture.md shows them.
set -eu
cd "$(dirname "$0")/.."
cargo test --quiet --test it house:: -- --nocapture | grep '^|'
