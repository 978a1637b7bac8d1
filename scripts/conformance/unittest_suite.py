"""Runs the tests of the suite in the working directory, which are unittest's (results.py says what the environment has)."""

import pathlib
import sys
import traceback
import unittest

from results import Results


def tests_of(suite):
    for part in suite:
        if isinstance(part, unittest.TestSuite):
            yield from tests_of(part)
        else:
            yield part


class Reporter(unittest.TestResult):
    """Says at once what became of each test."""

    def __init__(self, results):
        super().__init__()
        self.results = results

    def startTest(self, test):
        super().startTest(test)
        self.fault = None
        self.outcome = "passed"
        self.results.say(test.id(), "started")

    def stopTest(self, test):
        super().stopTest(test)
        self.results.say(test.id(), self.outcome, self.fault or "")

    def fail(self, error):
        self.outcome = "failed"
        self.fault = self.fault or "".join(traceback.format_exception(*error))

    def addError(self, test, err):
        # Also for a class or module that could not be set up, which no test has begun for.
        if isinstance(test, unittest.TestCase):
            self.fail(err)
        else:
            self.results.say(test.id(), "failed", "".join(traceback.format_exception(*err)))

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
    results = Results()
    sys.path.insert(0, ".")
    # The suites' own main programs put this package in place themselves.
    modules = sorted(f"tests.{path.stem}" for path in pathlib.Path("tests").glob("test_*.py"))
    found = unittest.defaultTestLoader.loadTestsFromNames(modules)
    wanted = [test for test in tests_of(found) if results.wants(test.id())]
    unittest.TestSuite(wanted).run(Reporter(results))


if __name__ == "__main__":
    main()
