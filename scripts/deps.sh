#!/bin/sh
# Installs what the build and the tests need, where it is missing, with the system's package manager (apt-get).
# usage: scripts/deps.sh [--check] GROUP...
#   build     a C compiler (PostgreSQL's parser is C)
#   lint      rustfmt and clippy
#   deny      cargo-deny, which is built (minutes)
#   postgres  PostgreSQL's server programs, with pgbench and psql
#   node      node and npm (they fetch a second version of PostgreSQL for the tests)
#   python    Python with its headers and libpq's (psycopg2 is built for its tests)
#   drivers   PgBouncer, and Python, which the tests fetch drivers for: what operators use the console with
#   pgpool    Pgpool-II, to compare with
#   apps      interpreters, compilers and drivers of the tools that `make apps` runs; those that the system's package
#             manager does not know are left out, and skipped there
#   valgrind  valgrind, which counts instructions
#   bench     the poolers to compare with: pgbouncer and haproxy
# --check only says what is missing, and fails when something is.
set -eu

say() { echo "deps: $*" >&2; }

has() { command -v "$1" >/dev/null 2>&1; }

has_file() {
    for file in "$@"; do
        [ -e "$file" ] && return 0
    done
    return 1
}

# The same places as in crates/lab/src/postgres.rs.
has_postgres() {
    [ -n "${POSTGRES_BIN:-}" ] || has_file /usr/lib/postgresql/*/bin/initdb || has initdb ||
        { has pg_config && [ -x "$(pg_config --bindir)/initdb" ]; }
}

# Debian has pgbench in the server's package, others in one with the contributed modules.
has_pgbench() {
    has_file /usr/lib/postgresql/*/bin/pgbench || has pgbench
}

has_python_headers() {
    headers=$(python3 -c 'import sysconfig; print(sysconfig.get_path("include"))' 2>/dev/null) && [ -e "$headers/Python.h" ]
}

# psycopg2 asks pg_config where they are.
has_libpq_headers() {
    has pg_config && [ -e "$(pg_config --includedir)/libpq-fe.h" ]
}

# Prints the packages that the group `apps` lacks. A machine without some of them runs the other tools.
missing_of_apps() {
    has java && has javac || echo default-jdk-headless
    has_file /usr/share/java/postgresql.jar || echo libpostgresql-jdbc-java
    has go || echo golang-go
    has_file /usr/share/gocode/src/github.com/lib/pq || echo golang-github-lib-pq-dev
    has_file /usr/share/gocode/src/github.com/jackc/pgx || echo golang-github-jackc-pgx-v4-dev
    has_file /usr/lib/*/odbc/psqlodbcw.so || echo odbc-postgresql
    has pkg-config || echo pkg-config
    has_libpq_headers || echo libpq-dev
    php -r 'exit(extension_loaded("pdo_pgsql") ? 0 : 1);' 2>/dev/null || echo php-cli php-pgsql
    perl -MDBD::Pg -e 1 2>/dev/null || echo libdbd-pg-perl
    ruby -e 'require "active_record"; require "pg"' 2>/dev/null || echo ruby ruby-activerecord ruby-pg
    server=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -1)
    [ -n "$server" ] && [ ! -x "$server/pg_repack" ] && echo "postgresql-$(basename "$(dirname "$server")")-repack"
    return 0
}

# Prints the packages that a group lacks.
missing_of() {
    case $1 in
        build)
            has cc || echo gcc libc6-dev
            ;;
        postgres)
            has_postgres || echo postgresql
            [ -n "${POSTGRES_BIN:-}" ] || has_pgbench || echo postgresql-contrib
            ;;
        node)
            has node || echo nodejs
            has npm || echo npm
            ;;
        python)
            has python3 || echo python3
            # Debian has the module in one package and the pip that it puts in place in another.
            python3 -c 'import ensurepip, venv' 2>/dev/null || echo python3-venv
            has_python_headers || echo python3-dev
            has_libpq_headers || echo libpq-dev
            ;;
        drivers)
            has pgbouncer || has_file /usr/sbin/pgbouncer || echo pgbouncer
            has psql || echo postgresql-client
            has python3 || echo python3
            python3 -c 'import ensurepip, venv' 2>/dev/null || echo python3-venv
            ;;
        bench)
            has pgbouncer || has_file /usr/sbin/pgbouncer || echo pgbouncer
            has haproxy || has_file /usr/sbin/haproxy || echo haproxy
            ;;
        valgrind) has valgrind || echo valgrind ;;
        pgpool)
            has pgpool || has_file /usr/sbin/pgpool || echo pgpool2
            ;;
        apps) missing_of_apps ;;
        lint | deny) ;;
        *)
            say "no such group: $1"
            exit 2
            ;;
    esac
}

# Prints the parts of the Rust toolchain that a group lacks.
components_of() {
    [ "$1" = lint ] || return 0
    cargo fmt --version >/dev/null 2>&1 || echo rustfmt
    cargo clippy --version >/dev/null 2>&1 || echo clippy
}

# Whether all goes on without a package.
is_optional() {
    case " $optional " in
        *" $1 "*) return 0 ;;
        *) return 1 ;;
    esac
}

install_packages() {
    if ! has apt-get; then
        if [ "$(echo "$@")" = "$optional" ]; then
            say "missing, named as on Debian, and left out: $*; there is no apt-get here"
            return 0
        fi
        say "missing, named as on Debian: $*; there is no apt-get here: install them with your package manager"
        exit 1
    fi
    as_root=
    if [ "$(id -u)" != 0 ]; then
        if ! has sudo; then
            say "missing: $*; run this as root: apt-get install -y $*"
            exit 1
        fi
        as_root=sudo
    fi
    say "installing $* with apt-get"
    # The list may be old or absent on a fresh machine; when it cannot be fetched, what is there may do.
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq >&2 || say "apt-get update failed; going on"
    for package in "$@"; do
        shift
        if is_optional "$package" && ! apt-cache show "$package" >/dev/null 2>&1; then
            say "there is no package $package here: left out"
        else
            set -- "$@" "$package"
        fi
    done
    [ $# != 0 ] || return 0
    if ! $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >&2; then
        say "apt-get could not install $*; install them by hand and try again"
        exit 1
    fi
}

install_components() {
    if ! has rustup; then
        say "missing: $*; install them for the Rust toolchain in use"
        exit 1
    fi
    say "adding $* with rustup"
    rustup component add "$@" >&2
}

# Prints the programs that a group lacks and cargo builds.
programs_of() {
    [ "$1" = deny ] || return 0
    cargo deny --version >/dev/null 2>&1 || echo cargo-deny
}

install_programs() {
    say "building $* with cargo"
    cargo install --locked --quiet "$@" >&2
}

check=
if [ "${1:-}" = --check ]; then
    check=yes
    shift
fi
packages=
optional=
components=
programs=
for group in "$@"; do
    of_group=$(missing_of "$group")
    [ "$group" != apps ] || optional=$(echo $of_group)
    packages="$packages $of_group"
    components="$components $(components_of "$group")"
    programs="$programs $(programs_of "$group")"
done
# Split at spaces and line ends; that is what the lists are.
set -- $packages $components $programs
if [ $# = 0 ]; then
    [ -z "$check" ] || say "nothing is missing"
    exit 0
fi
if [ -n "$check" ]; then
    say "missing: $*"
    exit 1
fi
set -- $packages
[ $# = 0 ] || install_packages "$@"
set -- $components
[ $# = 0 ] || install_components "$@"
set -- $programs
[ $# = 0 ] || install_programs "$@"
