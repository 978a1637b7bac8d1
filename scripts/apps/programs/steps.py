"""What the programs in Python share: a line for each step."""

import contextlib
import os

PORT = os.environ["PGPORT"]
DATABASE = os.environ["PGDATABASE"]
USER = os.environ["PGUSER"]
DSN = f"host=127.0.0.1 port={PORT} dbname={DATABASE} user={USER}"


def say(what, came_out):
    print(f"{what}: {str(came_out)!r}"[:600], flush=True)


def words_of(error):
    """The state and the first line, without what a driver adds."""
    origin = getattr(error, "orig", None) or error.__cause__ or error
    state = getattr(origin, "sqlstate", None) or getattr(origin, "pgcode", None)
    if origin.args and isinstance(origin.args[0], dict):
        # pg8000's are the fields as they came.
        return f"{type(error).__name__} {origin.args[0].get('C')} {origin.args[0].get('M')}"
    lines = str(origin).strip().splitlines()
    return f"{type(error).__name__} {state} {lines[0] if lines else ''}"


@contextlib.contextmanager
def step(what):
    """A step that may fail: its words are what it came to."""
    try:
        yield
    except Exception as error:
        say(what, words_of(error))
    else:
        say(what, "done")


def outcome(what, work, *arguments, **named):
    """Says what `work` answers, or how it fails, and hands the answer on."""
    try:
        answer = work(*arguments, **named)
    except Exception as error:
        say(what, words_of(error))
        return None
    say(what, answer)
    return answer
