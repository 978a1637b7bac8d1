"""Runs each suite twice directly and once through Poolhouse, and says which tests only fail through the pool.

Exit code 0 when those are the ones in known.txt; 1 when there are others, or when one passes that is said to fail always.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import time

import psycopg2

import servers
from suites import SUITES

HERE = pathlib.Path(__file__).resolve().parent
USER = "postgres"
POOL_SIZE = 4
NEIGHBOURS = 2
# A test that says nothing for so long hangs. The longest of those that pass take a few seconds.
TEST_SECONDS_MAX = 60


def read_results(path):
    """The last word on each test, in the order of their beginnings."""
    results = {}
    for line in path.read_text().splitlines():
        result = json.loads(line)
        results[result["test"]] = result
    return results


def await_end(process, results):
    """Waits for the end of a suite; ends it itself when a test hangs, and says whether that was so."""
    while True:
        try:
            process.wait(1)
            return False
        except subprocess.TimeoutExpired:
            if time.time() - results.stat().st_mtime > TEST_SECONDS_MAX:
                process.kill()
                process.wait()
                return True


def run_suite(suite, port, home, results, only):
    """Runs a suite to its end, going on after tests that hang or that take the whole process with them."""
    results.write_text("")
    results.with_suffix(".log").write_text("")
    done = results.with_suffix(".done")
    folder = home / (SUITES[suite].folder or suite)
    own = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    environment = dict(
        own,
        PGHOST="127.0.0.1",
        PGPORT=str(port),
        PGUSER=USER,
        PGDATABASE=SUITES[suite].database,
        PSYCOPG2_TEST_REPL_DSN="",
        PYTHONPATH=str(HERE),
        RESULTS=str(results),
        DONE=str(done),
        ONLY=only,
    )
    while True:
        before = read_results(results)
        done.write_text("\n".join(before))
        command = SUITES[suite].command(HERE)
        with open(results.with_suffix(".log"), "a") as log:
            process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
            hung = await_end(process, results)
        after = read_results(results)
        if process.returncode != 0 and len(after) == len(before):
            raise SystemExit(f"the suite {suite} could not be run; why is in {results.with_suffix('.log')}")
        unfinished = [result for result in after.values() if result["outcome"] == "started"]
        if not unfinished:
            return after
        for result in unfinished:
            result["outcome"] = "failed"
            result["why"] = f"no end within {TEST_SECONDS_MAX} s" if hung else "ended the process"
        results.write_text("".join(json.dumps(result) + "\n" for result in after.values()))


def prepare_database(port, suite):
    """What the suites' own instructions ask for. Django's makes its database itself."""

    def execute(database, statement):
        connection = psycopg2.connect(host="127.0.0.1", port=port, dbname=database, user=USER)
        connection.autocommit = True
        connection.cursor().execute(statement)
        connection.close()

    database, statements = SUITES[suite].database, SUITES[suite].prepare
    if statements and database != "postgres":
        execute("postgres", f"CREATE DATABASE {database}")
    for statement in statements:
        execute(database, statement)


def run_directly(suite, options, logs):
    with servers.Postgres(logs) as server:
        prepare_database(server.port, suite)
        return run_suite(suite, server.port, options.home, logs / "results", options.only)


def run_pooled(suite, options, logs):
    with servers.Postgres(logs) as server:
        prepare_database(server.port, suite)
        with servers.Poolhouse(options.pooler, server.port, POOL_SIZE, logs) as pooler:
            target = ["127.0.0.1", str(pooler.port), SUITES[suite].database, USER, str(NEIGHBOURS)]
            with open(logs / "noise.log", "w") as log:
                noise = subprocess.Popen([sys.executable, HERE / "noise.py", *target], stdout=log, stderr=log)
            try:
                results = run_suite(suite, pooler.port, options.home, logs / "results", options.only)
                if noise.poll() is not None:
                    raise SystemExit(f"the neighbours in the pool have ended; why is in {logs / 'noise.log'}")
                return results
            finally:
                noise.kill()
                noise.wait()


def passed(results):
    return {test for test, result in results.items() if result["outcome"] == "passed"}


def read_known(suite, only):
    """The tests of a suite that known.txt names, and whether each fails always (its head says how they are written)."""
    known = {}
    for line in (HERE / "known.txt").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        named, _, reason = line.partition(": ")
        of, test, how = named.split()
        if how not in ("always", "sometimes") or not reason:
            raise SystemExit(f"known.txt: no word on when {test} fails, or why")
        if of == suite and only in test:
            known[test] = how == "always"
    return known


def last_line(text):
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return lines[-1] if lines else "did not run"


def compare(suite, options):
    """Prints what a suite's runs show. Answers whether it is as known.txt says."""
    runs = []
    for name, run in [("direct-1", run_directly), ("direct-2", run_directly), ("pooled", run_pooled)]:
        print(f"{suite}: {name}", file=sys.stderr, flush=True)
        logs = options.home / "logs" / suite / name
        logs.mkdir(parents=True, exist_ok=True)
        runs.append(run(suite, options, logs))
    first, second, pooled = runs
    expected = passed(first) & passed(second)
    kept = expected & passed(pooled)
    lost = expected - kept
    known = read_known(suite, options.only)
    for test in sorted(lost):
        mark = "known  " if test in known else "FAILED "
        print(f"{mark} {suite} {test}: {last_line(pooled.get(test, {}).get('why', ''))}")
    stale = sorted(test for test, always in known.items() if always and test not in lost)
    for test in stale:
        print(f"STALE   {suite} {test}: named in known.txt, but does not pass directly and fail through the pool")
    print(f"{suite}: {len(kept)} of {len(expected)} that pass directly", flush=True)
    return not stale and lost <= set(known)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=pathlib.Path, required=True, help="the directory that run.sh has filled")
    parser.add_argument("--pooler", type=pathlib.Path, help="Poolhouse's binary (default: the release build)")
    parser.add_argument("--suite", choices=list(SUITES), action="append", help="only this suite")
    parser.add_argument("--only", default="", help="only tests whose name contains this")
    options = parser.parse_args()
    options.pooler = options.pooler or options.home.parent / "release" / "poolhouse"
    good = [compare(suite, options) for suite in options.suite or SUITES]
    sys.exit(0 if all(good) else 1)


if __name__ == "__main__":
    main()
