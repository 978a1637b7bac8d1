"""Runs the tests of the suite in the working directory, and writes one JSON line per test when it begins and ends.

usage: one_suite.py RESULTS SKIP [ONLY]. SKIP is a file with one name per line of tests that are not to be run (again);
ONLY leaves out the tests whose name does not contain it.
"""

import json
import pathlib
import sys
import traceback
import unittest


def tests_of(suite):
    for part in suite:
        if isinstance(part, unittest.TestSuite):
            yield from tests_of(part)
        else:
            yield part


class Reporter(unittest.TestResult):
    """Says at once what became of each test: the process may hang in the next one."""

    def __init__(self, output):
        super().__init__()
        self.output = output

    def say(self, test, outcome, why=""):
        self.output.write(json.dumps({"test": test.id(), "outcome": outcome, "why": why}) + "\n")
        self.output.flush()

    def startTest(self, test):
        super().startTest(test)
        self.fault = None
        self.outcome = "passed"
        self.say(test, "started")

    def stopTest(self, test):
        super().stopTest(test)
        self.say(test, self.outcome, self.fault or "")

    def fail(self, error):
        self.outcome = "failed"
        self.fault = self.fault or "".join(traceback.format_exception(*error))

    def addError(self, test, err):
        # Also for a class or module that could not be set up, which no test has begun for.
        if isinstance(test, unittest.TestCase):
            self.fail(err)
        else:
            self.say(test, "failed", "".join(traceback.format_exception(*err)))

    def addFailure(self, test, err):
        self.fail(err)

    def addSubTest(self, test, subtest, err):
        if err is not None:
            self.fail(err)

    def addSkip(self, test, reason):
        self.outcome = "skipped"
        self.fault = reason

    def addUnexpectedSuccess(self, test):
        self.outcome = "failed"
        self.fault = "passed against its own expectation"


def main():
    results, skip, only = sys.argv[1], sys.argv[2], "".join(sys.argv[3:])
    done = set(pathlib.Path(skip).read_text().split("\n"))
    sys.path.insert(0, ".")
    # The suites' own main programs put this package in place themselves.
    modules = sorted(f"tests.{path.stem}" for path in pathlib.Path("tests").glob("test_*.py"))
    found = unittest.defaultTestLoader.loadTestsFromNames(modules)
    wanted = [test for test in tests_of(found) if only in test.id() and test.id() not in done]
    with open(results, "a") as output:
        unittest.TestSuite(wanted).run(Reporter(output))


if __name__ == "__main__":
    main()
