#!/bin/sh
# What can be said of the sources without running them.
# usage: scripts/lint.sh [STEP...]     all of them when none is named
#   fmt     the formatting
#   clippy  the compiler's and clippy's warnings, of tests and benches, too; what of std is newer than `rust-version`
#   doc     the documentation, of private items as well: links that lead nowhere
#   unused  crates that a Cargo.toml names and no source does (tests/it/manifests.rs)
#   deny    licences, where crates come from and which must not be there (deny.toml), with cargo-deny; and what is known
#           against their versions, where the database of that can be reached
#   msrv    that the program builds with the oldest compiler that Cargo.toml promises, where that is installed
# A step whose tool is missing says so and does not fail.
set -eu
cd "$(dirname "$0")/.."

say() { echo "lint: $*" >&2; }

deny() {
    if ! cargo deny --version >/dev/null 2>&1; then
        say "licences, bans and sources were NOT looked at: there is no cargo-deny (cargo install --locked cargo-deny)"
        return 0
    fi
    cargo deny check licenses bans sources
    if cargo deny fetch db >/dev/null 2>&1; then
        cargo deny check --disable-fetch advisories
    else
        say "advisories were NOT looked at: their database cannot be reached"
    fi
}

msrv() {
    oldest=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)
    if ! cargo "+$oldest" --version >/dev/null 2>&1; then
        say "Rust $oldest was NOT tried: it is not installed (rustup toolchain install $oldest --profile minimal)"
        return 0
    fi
    # A directory of its own: two compilers in one would build everything anew each time.
    cargo "+$oldest" check --quiet --workspace --locked --target-dir "${CARGO_TARGET_DIR:-target}/msrv"
}

[ $# != 0 ] || set -- fmt clippy doc unused deny msrv
for step in "$@"; do
    say "$step"
    case $step in
        fmt) cargo fmt --all --check ;;
        clippy) cargo clippy --workspace --all-targets -- -D warnings ;;
        doc) RUSTDOCFLAGS="-D warnings" cargo doc --quiet --workspace --no-deps --document-private-items ;;
        unused) cargo test --quiet --test it manifests:: ;;
        deny) deny ;;
        msrv) msrv ;;
        *)
            say "no such step: $step"
            exit 2
            ;;
    esac
done
