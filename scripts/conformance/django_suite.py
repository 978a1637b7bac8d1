"""Django's settings for its own tests, and the runner that they name (results.py says what the environment has)."""

import os
import unittest

from django.test.runner import DiscoverRunner

from results import Results
from unittest_suite import Reporter, tests_of

PLACE = {
    "ENGINE": "django.db.backends.postgresql",
    "HOST": os.environ["PGHOST"],
    "PORT": os.environ["PGPORT"],
    "USER": os.environ["PGUSER"],
    "NAME": "postgres",
}
# The first is the one that the suite in compare.py names: its neighbours in the pool use it, too.
DATABASES = {
    "default": dict(PLACE, TEST={"NAME": os.environ["PGDATABASE"]}),
    "other": dict(PLACE, TEST={"NAME": "django_other"}),
}
# What Django asks of settings for its tests.
SECRET_KEY = "secret"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
USE_TZ = False
TEST_RUNNER = "django_suite.Runner"


class Runner(DiscoverRunner):
    """Keeps Django's order of tests, which those that empty tables need, and tells what became of each."""

    def run_suite(self, suite, **kwargs):
        results = Results()
        reporter = Reporter(results)
        wanted = [test for test in tests_of(suite) if results.wants(test.id())]
        unittest.TestSuite(wanted).run(reporter)
        return reporter
