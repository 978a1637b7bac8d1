"""The tools: how each one's program is run, and what has to be there for it."""

import os
import pathlib
import shutil
import subprocess

import servers

PROGRAMS = pathlib.Path(__file__).resolve().parent / "programs"
GO_PATH = pathlib.Path("/usr/share/gocode")
JDBC = pathlib.Path("/usr/share/java/postgresql.jar")


def succeeds(*command):
    try:
        return subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0
    except OSError:
        return False


class Tool:
    """A program in `programs`, run as the database user `user`."""

    def __init__(self, name, file, user="app"):
        self.name, self.file, self.user = name, PROGRAMS / file, user

    def lacks(self, home):
        """Why it cannot be run here; empty when it can."""
        return ""

    def command(self, home):
        raise NotImplementedError


class Python(Tool):
    """With an expression that is true where all is there that is no package of Python's."""

    def __init__(self, name, file, probe="True", without=""):
        super().__init__(name, file)
        self.probe, self.without = probe, without

    def lacks(self, home):
        there = succeeds(home / "venv/bin/python", "-c", f"assert {self.probe}")
        return "" if there else self.without

    def command(self, home):
        return [home / "venv/bin/python", self.file]


class Node(Tool):
    """`package` is a directory that run.sh makes."""

    def __init__(self, name, file, package):
        super().__init__(name, file)
        self.package = package

    def lacks(self, home):
        if not shutil.which("node"):
            return "there is no node"
        return "" if (home / self.package).exists() else f"{self.package} could not be made"

    def command(self, home):
        # A module is looked for from where the program lies.
        copy = home / self.file.name
        shutil.copy(self.file, copy)
        shutil.copy(PROGRAMS / "steps.mjs", home)
        return ["node", copy]


class Script(Tool):
    """An interpreter's, with a command that succeeds where its library is there."""

    def __init__(self, name, file, interpreter, probe):
        super().__init__(name, file)
        self.interpreter, self.probe = interpreter, probe

    def lacks(self, home):
        if not shutil.which(self.interpreter):
            return f"there is no {self.interpreter}"
        return "" if succeeds(self.interpreter, *self.probe) else f"{self.interpreter} lacks its library"

    def command(self, home):
        return [self.interpreter, self.file]


class Java(Tool):
    def lacks(self, home):
        if not shutil.which("javac"):
            return "there is no Java compiler"
        return "" if JDBC.exists() else f"there is no {JDBC}"

    def command(self, home):
        classes = home / "classes"
        subprocess.run(["javac", "-d", classes, "-cp", JDBC, self.file], check=True)
        return ["java", "-cp", f"{classes}:{JDBC}", self.file.stem]


class Go(Tool):
    def __init__(self, name, file, package):
        super().__init__(name, file)
        self.package = package

    def lacks(self, home):
        if not shutil.which("go"):
            return "there is no Go compiler"
        return "" if (GO_PATH / "src" / self.package).exists() else f"{self.package} is not installed"

    def command(self, home):
        binary = home / f"go-{self.name}"
        own = dict(os.environ, GO111MODULE="off", GOPATH=str(GO_PATH), GOFLAGS="", GOCACHE=str(home / "go-cache"))
        subprocess.run(["go", "build", "-o", binary, self.file], check=True, env=own)
        return [binary]


class C(Tool):
    def __init__(self, name, file, compiler, package):
        super().__init__(name, file)
        self.compiler, self.package = compiler, package

    def lacks(self, home):
        if not shutil.which(self.compiler):
            return f"there is no {self.compiler}"
        return "" if succeeds("pkg-config", "--exists", self.package) else f"{self.package}'s headers are not installed"

    def command(self, home):
        binary = home / f"c-{self.name}"
        flags = subprocess.check_output(["pkg-config", "--cflags", "--libs", self.package], text=True).split()
        subprocess.run([self.compiler, "-O1", "-o", binary, self.file, *flags], check=True)
        return [binary]


class Shell(Tool):
    """The server's own programs, or an extension's one."""

    def __init__(self, name, file, program, user="app"):
        super().__init__(name, file, user)
        self.program = program

    def lacks(self, home):
        there = (servers.binaries() / self.program).exists() or shutil.which(self.program)
        return "" if there else f"there is no {self.program} for this PostgreSQL"

    def command(self, home):
        return ["sh", self.file]


TOOLS = {
    tool.name: tool
    for tool in [
        Python("habits", "habits_app.py"),
        Python("oddities", "oddities_app.py"),
        Python("psycopg", "psycopg_app.py"),
        Python("sqlalchemy", "sqlalchemy_app.py"),
        Python("django", "django_app.py"),
        Python("queues", "queues_app.py"),
        Python("orms", "orms_app.py"),
        Python("odbc", "odbc_app.py", "'PostgreSQL Unicode' in __import__('pyodbc').drivers()", "there is no psqlODBC"),
        Script("activerecord", "activerecord_app.rb", "ruby", ["-e", "require 'active_record'; require 'pg'"]),
        Node("prisma", "prisma_app.mjs", "prisma-client"),
        Node("sequelize", "sequelize_app.mjs", "node_modules/sequelize"),
        Node("graphile-worker", "graphile_worker_app.mjs", "node_modules/graphile-worker"),
        Node("pg-boss", "pg_boss_app.mjs", "node_modules/pg-boss"),
        Java("pgjdbc", "Pgjdbc.java"),
        Go("lib-pq", "lib_pq.go", "github.com/lib/pq"),
        Go("pgx", "pgx.go", "github.com/jackc/pgx/v4"),
        C("libpq", "libpq.c", "cc", "libpq"),
        Script("pdo", "pdo_app.php", "php", ["-r", "exit(extension_loaded('pdo_pgsql') ? 0 : 1);"]),
        Script("dbd-pg", "dbdpg_app.pl", "perl", ["-MDBD::Pg", "-e", "1"]),
        Shell("pg_dump", "pg_dump_app.sh", "pg_dump"),
        Shell("pg_repack", "pg_repack_app.sh", "pg_repack", user="postgres"),
    ]
}
