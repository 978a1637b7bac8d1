"""The suites: which database each uses, what has to be in it, and how its tests are run."""

import sys

# Of Django's tests, those that ask a database for more than rows by their key.
DJANGO = """
    aggregation annotations backends bulk_create cache composite_pk constraints datatypes db_functions delete expressions
    expressions_window get_or_create indexes introspection lookup m2m_through migrations model_fields postgres_tests queries
    raw_query schema select_for_update test_utils transaction_hooks transactions update
""".split()


class Suite:
    """A suite of the database `database`, run in the directory `folder` below the suite's own."""

    def __init__(self, database, command, folder="", prepare=()):
        self.database, self.command, self.folder, self.prepare = database, command, folder, prepare


def unittest_suite(home):
    return [sys.executable, home / "unittest_suite.py"]


def django_suite(_):
    options = ["--settings=django_suite", "--noinput", "--parallel=1", "--keepdb"]
    return [sys.executable, "runtests.py", *options, *DJANGO]


def pytest_suite(*arguments):
    return lambda _: [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "pytest_suite", *arguments]


def sqlalchemy_suite(driver):
    # The address is what the environment says, which the drivers that are libpq's read, and asyncpg as well.
    return pytest_suite(
        *("-p", "no:logging", "--backend-only", "--dburi", f"postgresql+{driver}:///sqlalchemy_test"),
        *("test/dialect/postgresql", "test/dialect/test_suite.py", "test/engine"),
    )


SQLALCHEMY = [
    "CREATE SCHEMA test_schema",
    "CREATE SCHEMA test_schema_2",
    "CREATE EXTENSION hstore",
    "CREATE EXTENSION citext",
]
HSTORE = ["CREATE EXTENSION IF NOT EXISTS hstore"]
SUITES = {
    "psycopg2": Suite("psycopg2_test", unittest_suite, prepare=HSTORE),
    "asyncpg": Suite("postgres", unittest_suite, prepare=HSTORE),
    "pg8000": Suite("postgres", pytest_suite("--benchmark-skip", "test"), prepare=HSTORE),
    "sqlalchemy": Suite("sqlalchemy_test", sqlalchemy_suite("psycopg"), prepare=SQLALCHEMY),
    "sqlalchemy-asyncpg": Suite("sqlalchemy_test", sqlalchemy_suite("asyncpg"), folder="sqlalchemy", prepare=SQLALCHEMY),
    "django": Suite("django_test", django_suite, folder="django/tests"),
}
