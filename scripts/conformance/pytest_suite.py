"""A plugin of pytest's that says at once what became of each test (results.py says what the environment has)."""

import pytest

from results import Results

RESULTS = Results()
# The outcome of the test that runs, and why.
CURRENT = {}


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    items[:] = [item for item in items if RESULTS.wants(item.nodeid)]


def pytest_runtest_logstart(nodeid):
    CURRENT.update(outcome="passed", why="")
    RESULTS.say(nodeid, "started")


def pytest_runtest_logreport(report):
    """Called for a test's setup, call and teardown: one that fails is enough."""
    if report.failed and CURRENT["outcome"] != "failed":
        CURRENT.update(outcome="failed", why=report.longreprtext)
    elif report.skipped:
        CURRENT.update(outcome="skipped", why=str(report.longrepr))


def pytest_runtest_logfinish(nodeid):
    RESULTS.say(nodeid, CURRENT["outcome"], CURRENT["why"])
