"""A throwaway PostgreSQL and a Poolhouse in front of it, each on a port of 127.0.0.1 that was free a moment ago.

PostgreSQL refuses to run as root, so root runs it as an unprivileged user. Clients are trusted: the suites log in under
names that they make up.
"""

import os
import pathlib
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time

# The suites want two-phase commit and logical replication. Nothing here need survive a crash of the machine.
SERVER_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "fsync": "off",
    "wal_level": "logical",
    "max_prepared_transactions": "10",
    "max_connections": "100",
    "jit": "off",
}
START_SECONDS_MAX = 60
STOP_SECONDS_MAX = 30


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def is_listening(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True
    except OSError:
        return False


def await_start(process, what, log, is_ready):
    """Waits until a server that was started is ready; fails when it ends before that."""
    deadline = time.monotonic() + START_SECONDS_MAX
    while not is_ready():
        if process.poll() is not None:
            raise SystemExit(f"{what} ended as it started; its words are in {log}")
        if time.monotonic() > deadline:
            raise SystemExit(f"{what} was not ready within {START_SECONDS_MAX} s; its words are in {log}")
        time.sleep(0.05)


def stop(process, number):
    process.send_signal(number)
    try:
        process.wait(STOP_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def binaries():
    """The directory of PostgreSQL's server programs, looked for in the same places as by `poolhouse demo`."""
    if os.environ.get("POSTGRES_BIN"):
        return pathlib.Path(os.environ["POSTGRES_BIN"])
    config = shutil.which("pg_config")
    if config:
        named = pathlib.Path(subprocess.check_output([config, "--bindir"], text=True).strip())
        if (named / "initdb").exists():
            return named
    found = [path.parent for path in pathlib.Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    if not found:
        raise SystemExit("no PostgreSQL server programs found; set POSTGRES_BIN")
    return max(found, key=lambda path: int(path.parent.name))


def account():
    """Keyword arguments for subprocess that make root somebody else."""
    if os.getuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    raise SystemExit("PostgreSQL refuses to run as root, and there is no user `postgres` or `nobody` to run it as")


class Postgres:
    """A fresh cluster with the superuser `postgres`, thrown away at the end of the `with` block."""

    def __init__(self, logs):
        self.port = free_port()
        self.log = logs / "postgresql.log"

    def __enter__(self):
        programs, who = binaries(), account()
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="poolhouse-conformance-"))
        if who:
            os.chown(self.directory, who["user"], who["group"])
        data = self.directory / "data"
        # In C every message is in English, as the suites expect.
        initdb = [programs / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "-N"]
        subprocess.run(initdb, check=True, stdout=subprocess.DEVNULL, cwd=self.directory, **who)
        settings = dict(SERVER_SETTINGS, port=self.port, unix_socket_directories=self.directory)
        command = [programs / "postgres", "-D", data]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.directory, **who)
        # It listens before it can serve.
        ask = [programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        await_start(self.process, "PostgreSQL", self.log, lambda: subprocess.run(ask).returncode == 0)
        return self

    def __exit__(self, *_):
        stop(self.process, signal.SIGQUIT)
        shutil.rmtree(self.directory, ignore_errors=True)


class Poolhouse:
    """Poolhouse in transaction mode in front of the server at `upstream`, with `size` connections per database and user."""

    def __init__(self, binary, upstream, size, logs):
        self.binary, self.upstream, self.size = binary, upstream, size
        self.port = free_port()
        self.config = logs / "poolhouse.toml"
        self.log = logs / "poolhouse.log"

    def __enter__(self):
        self.config.write_text(
            f"""[server]
listen = ["127.0.0.1:{self.port}"]
[auth]
method = "trust"
[pool]
mode = "transaction"
size = {self.size}
[clusters.main]
nodes = ["127.0.0.1:{self.upstream}"]
max_connections = 90
[clusters.main.health]
user = "postgres"
[databases."*"]
cluster = "main"
"""
        )
        with open(self.log, "w") as log:
            self.process = subprocess.Popen([self.binary, "serve", self.config], stdout=log, stderr=log)
        await_start(self.process, "Poolhouse", self.log, lambda: is_listening(self.port))
        return self

    def __exit__(self, *_):
        stop(self.process, signal.SIGINT)
