"""Applications as they are written, directly and through Poolhouse in transaction mode, and what differs.

Each tool has a program in its own language (programs/), which does with it what applications do and prints one line
`what: came out` for each step. It runs twice directly, in a database of its own each time; steps that come out different
are not compared. Then it runs through Poolhouse, beside noise in the same pool: in front of the primary alone ("pooled"),
with a replica that takes the reads ("split"), and so that blocks are on the replica until they write ("roaming").

Exit code 0 when all that differs is named in known.txt; 1 when there is more, or when a difference that is said to be
there always is not.
"""

import argparse
import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import nodes  # noqa: E402
import servers  # noqa: E402
import tools  # noqa: E402

# Of each server; a pooler takes at most 90 of them, and keeps those of a database for a while.
CONNECTIONS = 400
POOL_SIZE = 6
NEIGHBOURS = 3
PROGRAM_SECONDS_MAX = 180
# The line that says how a program ended.
END = "(end)"
MODES = ("pooled", "split", "roaming")


class Poolhouse:
    """Poolhouse in transaction mode in front of `upstream`."""

    def __init__(self, home, mode, upstream, options):
        self.port, self.log, self.mode = servers.free_port(), home / f"{mode}.log", mode
        self.level = options.log
        config = home / f"{mode}.toml"
        names = ", ".join(f'"127.0.0.1:{node.port}"' for node in upstream)
        # Programs write over one connection of their own pool and read over another.
        config.write_text(
            f"""[server]
listen = ["127.0.0.1:{self.port}"]
[admin]
http = ""
[auth]
method = "trust"
[pool]
mode = "transaction"
size = {options.pool}
[clusters.main]
nodes = [{names}]
max_connections = 90
[clusters.main.health]
user = "postgres"
[clusters.main.routing]
reads = "replica"
consistency = "global"
transactions = "{"read-until-write" if mode == "roaming" else "primary"}"
[databases."*"]
cluster = "main"
"""
        )
        self.command = [options.pooler, "serve", config]

    def __enter__(self):
        with open(self.log, "w") as log:
            own = dict(os.environ, RUST_LOG=self.level)
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log, env=own)
        servers.await_start(self.process, "Poolhouse", self.log, lambda: servers.is_listening(self.port))
        return self

    def __exit__(self, *_):
        servers.stop(self.process, signal.SIGINT)


@contextlib.contextmanager
def noise(port, database, user, neighbours, log):
    """Neighbours in the same pool, for as long as the block lasts."""
    if not neighbours:
        yield
        return
    target = ["127.0.0.1", str(port), database, user, str(neighbours)]
    with open(log, "w") as output:
        program = HERE.parent / "conformance/noise.py"
        process = subprocess.Popen([sys.executable, program, *target], stdout=output, stderr=output)
    try:
        yield
        if process.poll() is not None:
            raise SystemExit(f"the neighbours in the pool have ended; why is in {log}")
    finally:
        process.kill()
        process.wait()


def steps_of(text, hidden):
    """What each step came to: `what: came out`, the second one of a name under `name #2`."""
    for word, name in hidden.items():
        text = text.replace(word, name)
    steps, seen = {}, {}
    for line in text.splitlines():
        what, colon, came_out = line.partition(": ")
        if not colon:
            what, came_out = "(word)", line
        seen[what] = seen.get(what, 0) + 1
        steps[what if seen[what] == 1 else f"{what} #{seen[what]}"] = came_out
    return steps


def run_program(tool, port, database, options, log):
    """Runs a program to its end and answers its steps."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    scratch = pathlib.Path(tempfile.mkdtemp(prefix="poolhouse-app-"))
    environment = dict(
        own,
        PGHOST="127.0.0.1",
        PGPORT=str(port),
        PGUSER=tool.user,
        PGDATABASE=database,
        DATABASE_URL=f"postgresql://{tool.user}@127.0.0.1:{port}/{database}",
        APPS_HOME=str(options.home),
        POSTGRES_BIN=str(servers.binaries()),
        SCRATCH=str(scratch),
        LC_ALL="C.UTF-8",
        TZ="UTC",
    )
    command = tool.command(options.home)
    with open(log.with_suffix(".out"), "w") as output, open(log.with_suffix(".err"), "w") as errors:
        process = subprocess.Popen(
            command, stdout=output, stderr=errors, stdin=subprocess.DEVNULL, env=environment, cwd=scratch, start_new_session=True
        )
        try:
            code = process.wait(PROGRAM_SECONDS_MAX)
            end = str(code)
        except subprocess.TimeoutExpired:
            end = f"no end within {PROGRAM_SECONDS_MAX} s"
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    shutil.rmtree(scratch, ignore_errors=True)
    hidden = {database: "DATABASE", f":{port}": ":PORT", f"port {port}": "port PORT", str(scratch): "SCRATCH"}
    steps = steps_of(log.with_suffix(".out").read_text(errors="replace"), hidden)
    if end != "0":
        said = [line for line in log.with_suffix(".err").read_text(errors="replace").splitlines() if line.strip()]
        end += f" {said[-1].strip() if said else ''}"
    steps[END] = end
    return steps


class Stage:
    """The cluster, and the ways to it: `direct` and one by each mode."""

    def __init__(self, options, stack):
        self.options, self.databases = options, 0
        home = pathlib.Path(tempfile.mkdtemp(prefix="poolhouse-apps-"))
        stack.callback(shutil.rmtree, home, ignore_errors=True)
        who = servers.account()
        if who:
            os.chown(home, who["user"], who["group"])
        self.cluster = stack.enter_context(nodes.Cluster(home, 1, CONNECTIONS))
        self.cluster.primary.run("CREATE ROLE app LOGIN CREATEDB", "CREATE ROLE web_anon NOLOGIN", "GRANT web_anon TO app")
        self.ports = {"direct": self.cluster.primary.port}
        for mode in options.mode:
            upstream = [self.cluster.primary] if mode == "pooled" else self.cluster.nodes
            pooler = Poolhouse(options.home / "logs", mode, upstream, options)
            self.ports[mode] = stack.enter_context(pooler).port

    def run(self, tool, mode, name):
        self.databases += 1
        database = f"appsdb{self.databases}"
        self.cluster.primary.run(f"CREATE DATABASE {database} OWNER app")
        log = self.options.home / "logs" / f"{tool.name}-{name}"
        port = self.ports[mode]
        neighbours = 0 if mode == "direct" else self.options.noise
        with noise(port, database, tool.user, neighbours, log.with_suffix(".noise")):
            began = time.monotonic()
            steps = run_program(tool, port, database, self.options, log)
        self.cluster.primary.run(f"DROP DATABASE {database} WITH (FORCE)")
        print(f"{tool.name}: {name}: {time.monotonic() - began:.1f} s", file=sys.stderr, flush=True)
        return steps


def read_known():
    """What known.txt names: by tool, mode and step, whether it differs always."""
    known = {}
    for line in (HERE / "known.txt").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        named, _, reason = line.partition(" | ")
        tool, mode, how, step = named.split(" ", 3)
        if how not in ("always", "sometimes") or mode not in (*MODES, "all") or not reason:
            raise SystemExit(f"known.txt: no word on where or when {tool}'s {step!r} differs, or why")
        for each in MODES if mode == "all" else (mode,):
            known[tool, each, step] = how == "always"
    return known


def differences(expected, found):
    """Steps that came out different, with both values; `None` for a step that was not there."""
    return {step: (value, found.get(step)) for step, value in expected.items() if found.get(step) != value} | {
        step: (None, value) for step, value in found.items() if step not in expected and step != END
    }


def compare(tool, stage, options, known):
    """Prints what a tool's runs show. Answers whether it is as known.txt says."""
    first = stage.run(tool, "direct", "direct-1")
    second = stage.run(tool, "direct", "direct-2")
    # What one of them has and the other has not, or has different, nobody can ask of the pool.
    unstable = {step for step in first.keys() | second.keys() if first.get(step) != second.get(step)}
    expected = {step: value for step, value in first.items() if step not in unstable}
    good = first[END] == "0"
    if not good:
        print(f"BROKEN  {tool.name}: directly it ends with {first[END]}")
    for mode in options.mode:
        met = set()
        for number in range(options.rounds):
            found = stage.run(tool, mode, f"{mode}-{number + 1}" if options.rounds > 1 else mode)
            differing = differences(expected, {step: value for step, value in found.items() if step not in unstable})
            for step, (directly, through) in differing.items():
                named = (tool.name, mode, step) in known
                good = good and named
                met.add(step)
                print(f"{'known  ' if named else 'DIFFERS'} {tool.name} {mode}: {step}")
                if not named or options.verbose:
                    print(f"          directly: {directly}\n          through:  {through}", flush=True)
        for (of, where, step), always in known.items():
            if (of, where) == (tool.name, mode) and always and step not in met:
                good = False
                print(f"STALE   {tool.name} {mode}: {step}: named in known.txt, but is as directly")
        kept = len(expected) - len(met & expected.keys())
        print(f"{tool.name} {mode}: {kept} of {len(expected)} steps as directly", flush=True)
    if unstable:
        print(f"{tool.name}: not compared, different directly: {', '.join(sorted(unstable))}", flush=True)
    return good


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=pathlib.Path, required=True, help="the directory that run.sh has filled")
    parser.add_argument("--pooler", type=pathlib.Path, help="Poolhouse's binary (default: the release build)")
    parser.add_argument("--mode", choices=MODES, action="append", help="only this way through the pool")
    parser.add_argument("--rounds", type=int, default=1, help="how often each program runs through the pool")
    parser.add_argument("--pool", type=int, default=POOL_SIZE, help="server connections of a database and user")
    parser.add_argument("--noise", type=int, default=NEIGHBOURS, help="other clients in the same pool")
    parser.add_argument("--log", default="info", help="Poolhouse's log level")
    parser.add_argument("--verbose", action="store_true", help="also what came out of steps that known.txt names")
    parser.add_argument("tool", nargs="*", choices=[[], *sorted(tools.TOOLS)], help="only these tools")
    options = parser.parse_args()
    options.pooler = options.pooler or options.home.parent / "release" / "poolhouse"
    options.mode = options.mode or MODES
    (options.home / "logs").mkdir(exist_ok=True)
    known = read_known()
    good, skipped = [], []
    with contextlib.ExitStack() as stack:
        stage = Stage(options, stack)
        for name in options.tool or tools.TOOLS:
            lacks = tools.TOOLS[name].lacks(options.home)
            if lacks:
                skipped.append(name)
                print(f"skipped {name}: {lacks}", flush=True)
            else:
                good.append(compare(tools.TOOLS[name], stage, options, known))
    print(f"{sum(good)} of {len(good)} tools as directly or as known.txt says, {len(skipped)} skipped")
    sys.exit(0 if all(good) else 1)


if __name__ == "__main__":
    main()
