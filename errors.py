"""The one exception that stands for something the user can mend, and the way a script ends on it."""

import sys
from contextlib import contextmanager
from pathlib import Path


class InputError(Exception):
    """Bad input: its message is one sentence that names the file and the remedy."""


@contextmanager
def one_sentence_errors():
    """End the script on an `InputError`: its message on standard error, no traceback, exit code 2."""
    try:
        yield
    except InputError as error:
        print(f"{Path(sys.argv[0]).name}: error: {error}", file=sys.stderr)
        sys.exit(2)
