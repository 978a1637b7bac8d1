#!/usr/bin/env python3
"""PostgreSQL's own regression tests, directly and through Poolhouse in transaction mode; prints what differs.

Each run has a fresh cluster. The tests of the core run one after the other in the order of their schedule, then those
of the extensions that the server has, each extension in a database of its own, while other clients do short
transactions in the same database (and, through Poolhouse, in the same pool of server connections). Two direct runs,
one of them without the others, tell which tests are stable; those count. regress.sh fetches and builds what this needs.

What may differ, since a server connection has served others before, which a new one has not:
- stats: statistics reach others up to ten seconds late, and pg_stat_force_next_flush() hurries those of one connection
  only; a login through the pool is no new session in pg_stat_database.
- temp: current_schema() with a search path of pg_temp makes a temporary schema only once on each connection.
- guc: SET of an unknown plpgsql setting is allowed only before plpgsql is loaded.
- plpgsql_record: the first error in a function's text shows more than those after it, on each connection.
- plancache: how often a statement was planned is counted on each connection by itself.
- postgres_fdw, dblink: connections that an extension keeps belong to the server process.
- triggers: refint and ttdummy keep what they know in variables of the server process.
"""

import argparse
import difflib
import os
import pathlib
import pwd
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

USER = "postgres"


class Suite:
    """A folder with tests, and the database that they run in."""

    def __init__(self, folder, database, tests):
        self.folder, self.database = folder, database
        self.tests = [(self, test) for test in tests if (folder / "sql" / f"{test}.sql").exists()]


def core(source):
    """The tests in the order of the parallel schedule."""
    folder = source / "src/test/regress"
    lines = (folder / "parallel_schedule").read_text().splitlines()
    return Suite(folder, "regression", [test for line in lines if line.startswith("test:") for test in line.split()[1:]])


def extensions(source, postgres_bin):
    """One suite for each extension that the server has."""
    found = subprocess.run([postgres_bin / "pg_config", "--sharedir"], capture_output=True, text=True, check=True)
    installed = {path.stem for path in pathlib.Path(found.stdout.strip(), "extension").glob("*.control")}
    folders = [folder for folder in sorted((source / "contrib").iterdir()) if folder.name in installed]
    for folder in [*folders, source / "src/pl/plpgsql/src"]:
        makefile = (folder / "Makefile").read_text().replace("\\\n", " ")
        lines = [line.split("=", 1)[1] for line in makefile.splitlines() if re.match(r"REGRESS\s*\+?=", line)]
        yield Suite(folder, f"contrib_{folder.name}", " ".join(lines).split())


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(port, process):
    """Until a query on the port is answered."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if process.poll() is not None:
            sys.exit(f"regress: {process.args[0]} ended with {process.returncode}")
        try:
            client = Client(port, "postgres")
            client.query("SELECT 1")
            client.close()
            return
        except OSError:
            time.sleep(0.1)
    sys.exit(f"regress: nothing answers on port {port}")


class Client:
    """The least that can send simple queries (trust only)."""

    def __init__(self, port, database):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        pairs = f"user\0{USER}\0database\0{database}\0application_name\0noise\0\0".encode()
        self.socket.sendall(struct.pack("!ii", len(pairs) + 8, 196608) + pairs)
        self.drain()

    def query(self, text):
        body = text.encode() + b"\0"
        self.socket.sendall(b"Q" + struct.pack("!i", len(body) + 4) + body)
        self.drain()

    def drain(self):
        while True:
            tag, length = struct.unpack("!ci", self.exactly(5))
            body = self.exactly(length - 4)
            if tag == b"Z":
                return
            if tag == b"E" and body.startswith(b"SFATAL"):
                raise ConnectionError(body.decode(errors="replace"))

    def exactly(self, count):
        data = b""
        while len(data) < count:
            more = self.socket.recv(count - len(data))
            if not more:
                raise ConnectionError("closed")
            data += more
        return data

    def close(self):
        self.socket.sendall(b"X" + struct.pack("!i", 4))
        self.socket.close()


NOISE = [
    ["SELECT 1"],
    ["SET work_mem = '7MB'", "SELECT 2", "RESET work_mem"],
    ["BEGIN", "SET LOCAL search_path = pg_catalog", "SELECT 3", "COMMIT"],
    ["SET timezone = 'Asia/Tokyo'", "SELECT 4"],
    ["BEGIN", "SELECT 5", "ROLLBACK"],
    ["SET TIME ZONE DEFAULT", "SELECT 6"],
]


class Noise:
    """Other clients of the same pool, until the end of the block."""

    def __init__(self, port, database, clients, pause):
        self.stop = threading.Event()
        self.port, self.database, self.pause = port, database, pause
        self.threads = [threading.Thread(target=self.run, args=(at,)) for at in range(clients)]
        self.rounds = 0

    def run(self, at):
        client = None
        while not self.stop.is_set():
            try:
                client = client or Client(self.port, self.database)
                for text in NOISE[at % len(NOISE)]:
                    client.query(text)
                    self.stop.wait(self.pause)
                self.rounds += 1
            except OSError:
                client = None
                self.stop.wait(0.1)
            at += 1
        if client:
            client.close()

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        for thread in self.threads:
            thread.join()


class Run:
    """One run of the tests: a cluster of its own, perhaps with Poolhouse in front."""

    def __init__(self, arguments, name, poolhouse, noise):
        self.arguments, self.name, self.poolhouse, self.noise = arguments, name, poolhouse, noise
        self.directory = arguments.work / name
        self.bin = arguments.postgres_bin
        self.account = pwd.getpwnam(USER) if os.getuid() == 0 else None
        self.processes = []

    def spawn(self, command, **more):
        """As the unprivileged user, since PostgreSQL refuses to run as root."""
        if self.account:
            more.update(user=self.account.pw_uid, group=self.account.pw_gid, extra_groups=[])
        return subprocess.Popen([str(part) for part in command], cwd=self.directory, **more)

    def check(self, command, **more):
        process = self.spawn(command, stdout=subprocess.DEVNULL, **more)
        if process.wait() != 0:
            sys.exit(f"regress: {command[0]} ended with {process.returncode}")

    def prepare(self):
        shutil.rmtree(self.directory, ignore_errors=True)
        for folder in ("results", "testtablespace", "log"):
            (self.directory / folder).mkdir(parents=True)
        if self.account:
            for path in (self.directory, *self.directory.iterdir()):
                os.chown(path, self.account.pw_uid, self.account.pw_gid)

    def start_server(self):
        data = self.directory / "data"
        self.check([self.bin / "initdb", "-D", data, "-U", USER, "--no-locale", "-E", "UTF8", "-N", "-A", "trust"])
        port = free_port()
        settings = {
            "port": port, "listen_addresses": "127.0.0.1", "unix_socket_directories": self.directory, "fsync": "off",
            "max_prepared_transactions": 2, "autovacuum_naptime": "1d", "wal_level": "logical", "max_connections": 200, "shared_buffers": "128MB",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        log = open(self.directory / "log" / "server", "wb")
        # dblink and postgres_fdw connect to their own server.
        environment = os.environ | {"PGHOST": str(self.directory)}
        command = [self.bin / "postgres", "-D", data, *options]
        server = self.spawn(command, stdout=log, stderr=log, env=environment)
        self.processes.append((server, signal.SIGINT))
        wait_for(port, server)
        return port

    def create_database(self, port, database):
        client = Client(port, "postgres")
        client.query(f"CREATE DATABASE {database} TEMPLATE template0")
        for setting in ("lc_messages TO 'C'", "lc_monetary TO 'C'", "lc_numeric TO 'C'", "lc_time TO 'C'",
                        "bytea_output TO 'hex'", "timezone_abbreviations TO 'Default'"):
            client.query(f"ALTER DATABASE {database} SET {setting}")
        client.close()

    def start_poolhouse(self, server_port):
        port = free_port()
        config = self.directory / "poolhouse.toml"
        config.write_text(f"""
[server]
listen = ["127.0.0.1:{port}"]
[auth]
method = "trust"
[pool]
mode = "transaction"
size = {self.arguments.pool}
[clusters.main]
nodes = ["127.0.0.1:{server_port}"]
[databases."*"]
cluster = "main"
[log]
level = "{self.arguments.log}"
""")
        log = open(self.directory / "log" / "poolhouse", "wb")
        process = self.spawn([self.poolhouse, "serve", config], stdout=log, stderr=log)
        self.processes.append((process, signal.SIGTERM))
        wait_for(port, process)
        return port

    def environment(self, port, suite, test):
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}
        return kept | {
            "LC_MESSAGES": "C", "PGTZ": "PST8PDT", "PGDATESTYLE": "Postgres, MDY",
            "PGOPTIONS": "-c intervalstyle=postgres_verbose", "PGAPPNAME": f"pg_regress/{test}",
            "PGHOST": "127.0.0.1", "PGPORT": str(port), "PGUSER": USER, "PG_ABS_SRCDIR": str(suite.folder),
            "PG_ABS_BUILDDIR": str(self.directory), "PG_LIBDIR": str(self.arguments.library), "PG_DLSUFFIX": ".so",
        }

    def result(self, suite, test):
        return self.directory / "results" / f"{suite.database}.{test}.out"

    def one(self, port, suite, test):
        """One test's time in seconds; what it printed is in results/."""
        started = time.monotonic()
        with open(suite.folder / "sql" / f"{test}.sql") as script, open(self.result(suite, test), "wb") as result:
            psql = self.spawn(
                [self.bin / "psql", "-X", "-a", "-q", "-d", suite.database, "-v", "HIDE_TABLEAM=on",
                 "-v", "HIDE_TOAST_COMPRESSION=on"],
                stdin=script, stdout=result, stderr=result, env=self.environment(port, suite, test))
            try:
                psql.wait(self.arguments.timeout)
            except subprocess.TimeoutExpired:
                psql.kill()
                result.write(b"\nregress: took too long\n")
        return time.monotonic() - started

    def run(self, suites):
        """How long each test took, in seconds."""
        self.prepare()
        took, others = {}, 0
        try:
            server_port = self.start_server()
            port = self.start_poolhouse(server_port) if self.poolhouse else server_port
            for suite in suites:
                self.create_database(server_port, suite.database)
                with Noise(port, suite.database, self.noise, self.arguments.pause) as noise:
                    took.update({test: self.one(port, *test) for test in suite.tests})
                others += noise.rounds
            print(f"{self.name}: {sum(took.values()):.0f} s, {others} transactions of others", flush=True)
            return took
        finally:
            for process, ending in reversed(self.processes):
                process.send_signal(ending)
                process.wait()
            shutil.rmtree(self.directory / "data", ignore_errors=True)

    def output(self, test):
        text = self.result(*test).read_bytes().decode(errors="backslashreplace")
        return text.replace(str(self.directory), "BUILD").splitlines()


def report(arguments, tests, direct, again, through):
    """Prints how the runs compare; true when all that is stable is the same through Poolhouse."""
    def name(test):
        return f"{test[0].database}.{test[1]}"

    stable = [test for test in tests if direct.output(test) == again.output(test)]
    differing = [test for test in stable if direct.output(test) != through.output(test)]
    diffs = arguments.work / "diffs"
    shutil.rmtree(diffs, ignore_errors=True)
    diffs.mkdir()
    for test in differing:
        lines = difflib.unified_diff(direct.output(test), through.output(test), "direct", "through", n=6, lineterm="")
        (diffs / f"{name(test)}.diff").write_text("\n".join(lines) + "\n")
    print(f"not stable directly ({len(tests) - len(stable)}):", *[name(test) for test in tests if test not in stable])
    print(f"differ through Poolhouse ({len(differing)}), see {diffs}:", *[name(test) for test in differing])
    print(f"the same through Poolhouse: {len(stable) - len(differing)} of {len(stable)}")
    return not differing


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", type=pathlib.Path, required=True, help="PostgreSQL's source")
    parser.add_argument("--library", type=pathlib.Path, required=True, help="folder of regress.so, refint.so, autoinc.so")
    parser.add_argument("--postgres-bin", type=pathlib.Path, required=True)
    parser.add_argument("--poolhouse", type=pathlib.Path, required=True, help="the binary")
    parser.add_argument("--work", type=pathlib.Path, required=True, help="folder for the clusters and results")
    parser.add_argument("--pool", type=int, default=4, help="server connections")
    parser.add_argument("--noise", type=int, default=3, help="other clients")
    parser.add_argument("--pause", type=float, default=0.01, help="seconds between the statements of one of them")
    parser.add_argument("--timeout", type=float, default=300, help="seconds for one test")
    parser.add_argument("--log", default="warn", help="Poolhouse's log level")
    parser.add_argument("--keep-direct", action="store_true", help="use the direct results of the run before")
    parser.add_argument("suites", nargs="*", help="only these databases' tests: regression, contrib_hstore, …")
    arguments = parser.parse_args()
    for path in ("source", "library", "poolhouse", "work"):
        setattr(arguments, path, getattr(arguments, path).resolve())
    suites = [core(arguments.source), *extensions(arguments.source, arguments.postgres_bin)]
    suites = [suite for suite in suites if not arguments.suites or suite.database in arguments.suites]
    direct = Run(arguments, "direct", None, 0)
    again = Run(arguments, "again", None, arguments.noise)
    through = Run(arguments, "through", arguments.poolhouse, arguments.noise)
    for run in [through] if arguments.keep_direct else [direct, again, through]:
        run.run(suites)
    tests = [test for suite in suites for test in suite.tests]
    return 0 if report(arguments, tests, direct, again, through) else 1


if __name__ == "__main__":
    sys.exit(main())
