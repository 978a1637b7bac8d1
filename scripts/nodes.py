"""A throwaway primary and its streaming replicas, each on a port of 127.0.0.1 that was free a moment ago."""

import os
import pathlib
import signal
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "conformance"))

import psycopg  # noqa: E402
import servers  # noqa: E402


def connect(port, database="postgres"):
    return psycopg.connect(
        host="127.0.0.1", port=port, user="postgres", dbname=database, autocommit=True, connect_timeout=10, sslmode="disable"
    )


def children(parent):
    listed = pathlib.Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [int(child) for child in listed]


class Node:
    """One PostgreSQL server, the primary or a replica of it, in `home`."""

    def __init__(self, home, name, connections, primary=None):
        self.name, self.connections, self.primary = name, connections, primary
        self.port = servers.free_port()
        self.home, self.data, self.log = home, home / name, home / f"{name}.log"

    def make(self):
        programs, who = servers.binaries(), servers.account()
        if self.primary is None:
            command = [programs / "initdb", "-D", self.data, "-U", "postgres", "-A", "trust", "-E", "UTF8"]
            command += ["--locale=C.UTF-8", "-N"]
        else:
            origin = f"host=127.0.0.1 port={self.primary.port} user=postgres application_name={self.name}"
            command = [programs / "pg_basebackup", "-D", self.data, "-d", origin, "-R", "-c", "fast", "-X", "stream"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=self.home, **who)

    def start(self):
        # A server that was killed leaves it behind.
        (self.data / "postmaster.pid").unlink(missing_ok=True)
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": self.home,
            "fsync": "off",
            "wal_level": "logical",
            "max_connections": self.connections,
            "max_prepared_transactions": 10,
            "log_line_prefix": "",
            "hot_standby_feedback": "on",
        }
        command = [servers.binaries() / "postgres", "-D", self.data]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        with open(self.log, "a") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.home, **servers.account())
        ask = [servers.binaries() / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres"]
        servers.await_start(self.process, self.name, self.log, lambda: subprocess.run(ask).returncode == 0)

    def kill(self):
        """All its processes at once, so that none can say anything to its client."""
        self.process.send_signal(signal.SIGSTOP)
        for child in children(self.process.pid):
            os.kill(child, signal.SIGKILL)
        self.process.kill()
        self.process.wait()

    def run(self, *statements):
        with connect(self.port) as connection:
            return [connection.execute(statement) for statement in statements][-1]


class Cluster:
    """A primary and its replicas, each of which serves so many connections."""

    def __init__(self, home, replicas, connections):
        self.primary = Node(home, "primary", connections)
        self.replicas = [Node(home, f"replica{number + 1}", connections, self.primary) for number in range(replicas)]
        self.nodes = [self.primary, *self.replicas]

    def __enter__(self):
        for node in self.nodes:
            node.make()
            node.start()
        return self

    def __exit__(self, *_):
        for node in reversed(self.nodes):
            servers.stop(node.process, signal.SIGQUIT)

    def set_everywhere(self, name, value):
        """A setting of all nodes; `None` takes it back."""
        for node in self.nodes:
            change = f"ALTER SYSTEM RESET {name}" if value is None else f"ALTER SYSTEM SET {name} = '{value}'"
            node.run(change, "SELECT pg_reload_conf()")
        time.sleep(0.5)

    def catch_up(self):
        """Waits until the replicas show all that was written."""
        position = self.primary.run("SELECT pg_current_wal_lsn()::text").fetchone()[0]
        for replica in self.replicas:
            while not replica.run(f"SELECT pg_last_wal_replay_lsn() >= '{position}'").fetchone()[0]:
                time.sleep(0.05)
