"""What became of each test, one JSON line when it begins and one when it ends: the process may hang in the next one."""

import json
import os
import pathlib


class Results:
    """The file of results, and which tests are to be run.

    The environment names the file (RESULTS), a file with one name per line of tests that are not to be run again (DONE),
    and a text that the names of those to be run contain (ONLY).
    """

    def __init__(self):
        self.output = open(os.environ["RESULTS"], "a")
        self.done = set(pathlib.Path(os.environ["DONE"]).read_text().split("\n"))
        self.only = os.environ["ONLY"]

    def wants(self, test):
        return self.only in test and test not in self.done

    def say(self, test, outcome, why=""):
        self.output.write(json.dumps({"test": test, "outcome": outcome, "why": why}) + "\n")
        self.output.flush()
