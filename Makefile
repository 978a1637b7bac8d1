# Each target installs what it needs and lacks (scripts/deps.sh says what), with the system's package manager.
# DEMO, TESTS, CONFORMANCE, REGRESS, APPS, BENCH, INSTRUCTIONS and PGPOOL hand arguments on: make demo DEMO=--check.

.PHONY: help demo test conformance regress apps bench instructions pgpool fuzz lint build reference check-deps

help:
	@echo "make demo        a primary, two replicas and Poolhouse in front of them, to try out"
	@echo "make test        all tests, on real PostgreSQL servers"
	@echo "make conformance the own test suites of drivers and frameworks, directly and through Poolhouse"
	@echo "make regress     PostgreSQL's own regression tests, directly and through Poolhouse (on Debian)"
	@echo "make apps        programs written with Django, Prisma, pgjdbc and others, directly and through Poolhouse"
	@echo "make bench       Poolhouse measured against other poolers"
	@echo "make instructions  instructions of what runs for every message, here and in the commit before"
	@echo "make pgpool      Poolhouse beside Pgpool-II: where statements go, stale reads, load, a lost replica"
	@echo "make fuzz        each fuzz target for a minute (needs a nightly toolchain and cargo-fuzz)"
	@echo "make lint        formatting, clippy, documentation, unused crates, licences, the oldest compiler"
	@echo "make build       target/release/poolhouse"
	@echo "make reference   config/reference.toml and config/schema.json, from the declarations in src/config/keys.rs"
	@echo "make check-deps  what the other targets would install"

demo:
	@scripts/deps.sh build postgres
	cargo build --release
	@$${CARGO_TARGET_DIR:-target}/release/poolhouse demo $(DEMO)

test:
	@scripts/test.sh $(TESTS)

conformance:
	@scripts/deps.sh build postgres python
	cargo build --release
	@scripts/conformance/run.sh $(CONFORMANCE)

regress:
	@scripts/deps.sh build postgres python
	cargo build --release
	@scripts/conformance/regress.sh $(REGRESS)

apps:
	@scripts/deps.sh build postgres python node apps
	cargo build --release
	@scripts/apps/run.sh $(APPS)

bench:
	@scripts/deps.sh build postgres bench
	cargo bench --bench compare $(BENCH)

instructions:
	@scripts/deps.sh build valgrind
	@scripts/instructions.sh $(INSTRUCTIONS)

pgpool:
	@scripts/deps.sh build postgres drivers pgpool
	cargo build --release
	@$$(scripts/drivers.sh) scripts/pgpool/compare.py --poolhouse $${CARGO_TARGET_DIR:-target}/release/poolhouse $(PGPOOL)

# The pure modules (crates/core), on bytes that nobody chose.
FUZZ_SECONDS ?= 60
fuzz:
	@scripts/deps.sh build
	@cargo fuzz --version >/dev/null 2>&1 || cargo install cargo-fuzz
	for target in frames session lexer; do \
		mkdir -p tests/fuzz/corpus/$$target; \
		cargo +nightly fuzz run --fuzz-dir tests/fuzz $$target tests/fuzz/corpus/$$target tests/fuzz/seeds/$$target \
			-- -max_total_time=$(FUZZ_SECONDS) || exit 1; \
	done

lint:
	@scripts/deps.sh build lint deny
	@scripts/lint.sh

build:
	@scripts/deps.sh build
	cargo build --release

reference:
	@scripts/deps.sh build
	cargo build --quiet
	$${CARGO_TARGET_DIR:-target}/debug/poolhouse check --reference > config/reference.toml
	$${CARGO_TARGET_DIR:-target}/debug/poolhouse check --schema > config/schema.json

check-deps:
	@scripts/deps.sh --check build lint deny postgres drivers node python apps bench valgrind pgpool
