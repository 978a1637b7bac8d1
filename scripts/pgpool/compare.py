#!/usr/bin/env python3
"""Poolhouse and Pgpool-II side by side, in front of the same primary and its two streaming replicas.

usage: compare.py --poolhouse BINARY [--part PART]... [--seconds N] [--rounds N]

statements  each statement of the golden table of the tests, through both: which node ran it, as the nodes' own logs say
fresh       sessions that insert a row and read it at once, while the replicas are 200 ms behind; then reads after a pause
load        pgbench, which only reads: throughput, and the pooler's own CPU time per transaction
loss        pgbench, which only reads, while one of the replicas is killed: how many of its clients see an error

Both poolers get the same number of server connections in all and send no reads to the primary by choice. All else is
left as each delivers it, but for Pgpool-II's health check, which it delivers switched off.
"""

import argparse
import collections
import contextlib
import os
import pathlib
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "scripts/conformance")]

import psycopg  # noqa: E402
import servers  # noqa: E402
from nodes import Cluster, children, connect  # noqa: E402

GOLDEN = ROOT / "tests/it/golden"
REPLICAS = 2
# Of server connections to each node, and of Pgpool-II's processes, each of which serves one client.
CONNECTIONS = 60
APPLY_DELAY = "200ms"
FRESH_SESSIONS = 8
FRESH_ROUNDS = 50
LOAD_CLIENTS = 20
# How long after its time a load may go on before its clients count as waiting for ever.
HANG_SECONDS = 20
PARTS = ("statements", "fresh", "load", "loss")


def say(*words):
    print(*words, file=sys.stderr, flush=True)


class Pooler:
    """A pooler that was started in front of a cluster."""

    def __enter__(self):
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log, cwd=self.home, **servers.account())
        servers.await_start(self.process, self.name, self.log, self.serves)
        return self

    def __exit__(self, *_):
        servers.stop(self.process, self.end)

    def serves(self):
        try:
            with connect(self.port) as connection:
                return connection.execute("SELECT 1").fetchone() == (1,)
        except psycopg.Error:
            return False

    def cpu_seconds(self):
        """What it and its children have used until now."""
        ticks = 0
        for process in [self.process.pid, *children(self.process.pid)]:
            with contextlib.suppress(OSError):
                words = pathlib.Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
                ticks += int(words[11]) + int(words[12])
        return ticks / os.sysconf("SC_CLK_TCK")


class Poolhouse(Pooler):
    name = "Poolhouse"
    end = signal.SIGINT

    def __init__(self, home, cluster, binary, settings=""):
        self.home, self.port, self.log = home, servers.free_port(), home / "poolhouse.log"
        config = home / "poolhouse.toml"
        nodes = ", ".join(f'"127.0.0.1:{node.port}"' for node in cluster.nodes)
        config.write_text(
            f"""[server]
listen = ["127.0.0.1:{self.port}"]
workers = 2
[admin]
http = "127.0.0.1:{servers.free_port()}"
[auth]
method = "trust"
[pool]
mode = "transaction"
size = 20
[clusters.main]
nodes = [{nodes}]
max_connections = {CONNECTIONS}
[clusters.main.health]
user = "postgres"
[clusters.main.routing]
{settings}
[databases."*"]
cluster = "main"
"""
        )
        self.command = [binary, "serve", config]


class Pgpool(Pooler):
    name = "Pgpool-II"
    end = signal.SIGINT

    def __init__(self, home, cluster, settings=""):
        self.home, self.port, self.log = home, servers.free_port(), home / "pgpool.log"
        config, hosts, users = home / "pgpool.conf", home / "pool_hba.conf", home / "pcp.conf"
        lines = [
            "backend_clustering_mode = 'streaming_replication'",
            "listen_addresses = '127.0.0.1'",
            f"port = {self.port}",
            f"pcp_port = {servers.free_port()}",
            f"socket_dir = '{home}'",
            f"pcp_socket_dir = '{home}'",
            f"wd_ipc_socket_dir = '{home}'",
            f"pid_file_name = '{home}/pgpool.pid'",
            f"logdir = '{home}'",
            "pool_passwd = ''",
            f"num_init_children = {CONNECTIONS}",
            "max_pool = 1",
            "sr_check_user = 'postgres'",
            "health_check_user = 'postgres'",
            "health_check_period = 1",
            "health_check_timeout = 2",
        ]
        for number, node in enumerate(cluster.nodes):
            lines += [
                f"backend_hostname{number} = '127.0.0.1'",
                f"backend_port{number} = {node.port}",
                f"backend_weight{number} = {0 if node is cluster.primary else 1}",
                f"backend_flag{number} = 'ALLOW_TO_FAILOVER'",
            ]
        config.write_text("\n".join([*lines, settings]) + "\n")
        hosts.write_text("")
        users.write_text("")
        # What it remembers of nodes from an earlier run would keep them out.
        (home / "pgpool_status").unlink(missing_ok=True)
        self.command = [shutil.which("pgpool") or "/usr/sbin/pgpool", "-n", "-f", config, "-a", hosts, "-F", users]


# Each pooler with each of its settings that matter for a part, newly started for it.
def lineup(part, home, cluster, binary):
    yield "Poolhouse", Poolhouse(home, cluster, binary)
    # A server connection for each session: some that had served others did not log all statements.
    yield "Pgpool-II", Pgpool(home, cluster, "connection_cache = off" if part == "statements" else "")
    if part == "fresh":
        yield "Pgpool-II, disable_load_balance_on_write = always", Pgpool(
            home, cluster, "disable_load_balance_on_write = 'always'"
        )
    if part == "load":
        yield "Pgpool-II, statement_level_load_balance = on", Pgpool(home, cluster, "statement_level_load_balance = on")


def golden():
    """Statements with their marks, those that change nothing first."""
    lines = (GOLDEN / "statements.txt").read_text().splitlines()
    pairs = [line.split(" | ", 1) for line in lines if line and not line.startswith("#")]
    return sorted(pairs, key=lambda pair: ("reads", "kept", "refused").index(pair[0]))


def ran_on(cluster, offsets, marker):
    """Where the statement with that marker was logged: kinds of nodes."""
    kinds = set()
    for node, offset in zip(cluster.nodes, offsets):
        with open(node.log, errors="replace") as log:
            log.seek(offset)
            if any(marker in line and not line.startswith(("STATEMENT", "ERROR")) for line in log):
                kinds.add("primary" if node is cluster.primary else "replica")
    return " and ".join(sorted(kinds)) or "no node"


def compare_statements(args, home, cluster):
    table = collections.defaultdict(collections.Counter)
    columns, notes = [], []
    for name, pooler in lineup("statements", home, cluster, args.poolhouse):
        columns.append(name)
        cluster.primary.run("DROP DATABASE IF EXISTS golden WITH (FORCE)", "CREATE DATABASE golden")
        with connect(cluster.primary.port, "golden") as connection:
            connection.execute((GOLDEN / "setting.sql").read_text())
        cluster.catch_up()
        # Anew for each pooler: among the statements is ALTER SYSTEM.
        cluster.set_everywhere("log_statement", "all")
        with pooler:
            # Both ask the catalog about what they meet.
            with connect(pooler.port, "golden") as connection:
                connection.execute("SELECT count(*) FROM orders")
            time.sleep(2)
            for number, (mark, statement) in enumerate(golden()):
                marker = f"/*of {number}*/"
                offsets = [node.log.stat().st_size for node in cluster.nodes]
                said = ""
                connection = connect(pooler.port, "golden")
                try:
                    connection.execute(f"{statement} {marker}")
                except psycopg.Error as error:
                    # What the driver itself dislikes, such as COPY here, has reached the server all the same.
                    said = error.sqlstate or ""
                connection.close()
                where = ran_on(cluster, offsets, marker)
                table[mark][name, where] += 1
                if where == "no node" or said == "25006" or (mark != "reads" and "replica" in where) or (mark == "reads" and where == "primary"):
                    notes.append(f"{name}: {mark}: {where}{said and ' ' + said}: {statement}")
                if said == "25006":
                    table[mark][name, "refused to the client with 25006"] += 1
    cluster.set_everywhere("log_statement", None)
    print("\n## Where statements ran\n")
    rows = {"reads": "may run on a replica", "kept": "are for the primary, though a replica would take them",
            "refused": "are for the primary, and a replica refuses them"}
    for mark, meaning in rows.items():
        print(f"{sum(1 for kind, _ in golden() if kind == mark)} statements {meaning}:")
        for name in columns:
            found = [f"{where} {count}" for (whose, where), count in sorted(table[mark].items()) if whose == name]
            print(f"- {name}: {', '.join(found)}")
    if args.list:
        print("\nReads on the primary, others on a replica:")
        print("\n".join(notes))


def compare_fresh(args, home, cluster):
    cluster.primary.run("DROP TABLE IF EXISTS fresh", "CREATE TABLE fresh (id int PRIMARY KEY)")
    cluster.catch_up()
    cluster.set_everywhere("log_statement", "all")
    seen = 0
    print(f"\n## Insert, then read it in the same session, replicas {APPLY_DELAY} behind\n")
    for name, pooler in lineup("fresh", home, cluster, args.poolhouse):
        cluster.primary.run("TRUNCATE fresh")
        cluster.catch_up()
        for replica in cluster.replicas:
            replica.run(f"ALTER SYSTEM SET recovery_min_apply_delay = '{APPLY_DELAY}'", "SELECT pg_reload_conf()")
        time.sleep(0.5)
        results = collections.Counter()

        def session(number):
            with connect(pooler.port) as connection:
                for turn in range(FRESH_ROUNDS):
                    row = number * FRESH_ROUNDS + turn
                    connection.execute(f"INSERT INTO fresh VALUES ({row})")
                    found = connection.execute(f"SELECT count(*) FROM fresh WHERE id = {row}").fetchone()[0]
                    results["stale" if found == 0 else "fresh"] += 1
                time.sleep(3)
                for _ in range(FRESH_ROUNDS):
                    connection.execute("SELECT count(*) AS later FROM fresh")

        with pooler:
            threads = [threading.Thread(target=session, args=(number,)) for number in range(FRESH_SESSIONS)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        later = FRESH_SESSIONS * FRESH_ROUNDS
        on_replicas = sum(executions(replica, "SELECT count(*) AS later") for replica in cluster.replicas)
        before, seen = seen, on_replicas
        print(f"- {name}: {results['stale']} of {results['stale'] + results['fresh']} reads were stale;"
              f" three seconds after the last write {seen - before} of {later} reads ran on a replica")
        for replica in cluster.replicas:
            replica.run("ALTER SYSTEM RESET recovery_min_apply_delay", "SELECT pg_reload_conf()")
    cluster.set_everywhere("log_statement", None)


def executions(node, statement):
    """How often a node's log has it, as a simple query or a prepared one."""
    with open(node.log, errors="replace") as log:
        return sum(line.startswith("LOG:") and statement in line for line in log)


def pgbench(port, protocol, seconds):
    command = [servers.binaries() / "pgbench", "-S", "-n", "-h", "127.0.0.1", "-p", str(port), "-U", "postgres", "-c", str(LOAD_CLIENTS)]
    command += ["-M", protocol, "-T", str(seconds), "postgres"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def transactions(said):
    found = re.search(r"number of transactions actually processed: (\d+)", said)
    return int(found.group(1)) if found else 0


def make_pgbench_tables(cluster):
    initialize = [servers.binaries() / "pgbench", "-i", "-q", "-s", "10", "-h", "127.0.0.1", "-p", str(cluster.primary.port), "-U", "postgres"]
    subprocess.run([*initialize, "postgres"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    cluster.catch_up()


def compare_load(args, home, cluster):
    make_pgbench_tables(cluster)
    rates, costs = collections.defaultdict(list), collections.defaultdict(list)
    for turn in range(args.rounds):
        for name, pooler in lineup("load", home, cluster, args.poolhouse):
            with pooler:
                for protocol in ("simple", "extended", "prepared"):
                    before = pooler.cpu_seconds()
                    said, complaints = pgbench(pooler.port, protocol, args.seconds).communicate()
                    used, done = pooler.cpu_seconds() - before, transactions(said)
                    if not done:
                        raise SystemExit(f"pgbench through {name} did nothing: {complaints}")
                    rates[protocol, name].append(done / args.seconds)
                    costs[protocol, name].append(used / done * 1e6)
        say(f"round {turn + 1} of {args.rounds} is done")
    print(f"\n## pgbench -S, {LOAD_CLIENTS} clients: median of {args.rounds} rounds of {args.seconds} s\n")
    print("| protocol | pooler | transactions/s | CPU of the pooler per transaction, µs |\n|---|---|---|---|")
    for protocol, name in rates:
        rate, cost = statistics.median(rates[protocol, name]), statistics.median(costs[protocol, name])
        print(f"| {protocol} | {name} | {rate:.0f} | {cost:.1f} |")


def compare_loss(args, home, cluster):
    make_pgbench_tables(cluster)
    print(f"\n## A replica is killed under {LOAD_CLIENTS} clients that only read\n")
    victim = cluster.replicas[1]
    for name, pooler in lineup("loss", home, cluster, args.poolhouse):
        with pooler:
            load = pgbench(pooler.port, "simple", 8)
            time.sleep(3)
            victim.kill()
            try:
                said, complaints = load.communicate(timeout=8 + HANG_SECONDS)
            except subprocess.TimeoutExpired:
                load.kill()
                print(f"- {name}: pgbench had not ended {HANG_SECONDS} s after its time; clients wait for an answer")
                load.communicate()
                victim.start()
                continue
            lost = len(re.findall(r"client \d+ (?:script \d+ )?aborted|connection to server .* failed|perhaps the backend died", complaints))
            print(f"- {name}: {min(lost, LOAD_CLIENTS)} of {LOAD_CLIENTS} clients saw an error; {transactions(said)} transactions in 8 s")
        victim.start()
        cluster.catch_up()


def main():
    parser = argparse.ArgumentParser(description="Poolhouse and Pgpool-II side by side")
    parser.add_argument("--poolhouse", type=pathlib.Path, required=True, help="the program to measure")
    parser.add_argument("--part", action="append", choices=PARTS, help="only this part; can be given more than once")
    parser.add_argument("--seconds", type=int, default=5, help="how long one measurement of the load takes")
    parser.add_argument("--rounds", type=int, default=3, help="how often the load is measured")
    parser.add_argument("--list", action="store_true", help="list the statements that ran elsewhere than they could")
    args = parser.parse_args()
    args.poolhouse = args.poolhouse.resolve()
    home = pathlib.Path(tempfile.mkdtemp(prefix="poolhouse-pgpool-"))
    who = servers.account()
    if who:
        os.chown(home, who["user"], who["group"])
    # The program may lie where PostgreSQL's user cannot reach it.
    binary = home / "poolhouse"
    shutil.copy(args.poolhouse, binary)
    args.poolhouse = binary
    work = {"statements": compare_statements, "fresh": compare_fresh, "load": compare_load, "loss": compare_loss}
    try:
        with Cluster(home, REPLICAS, 2 * CONNECTIONS) as cluster:
            for part in args.part or PARTS:
                say(f"{part} …")
                work[part](args, home, cluster)
    finally:
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    main()
