"""The one exception that stands for something the user can mend, and the ways in which a script ends."""

import errno
import os
import sys
from contextlib import contextmanager
from pathlib import Path

# What the user can mend about a disk: full, over quota, not permitted, read-only.
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)


class InputError(Exception):
    """Bad input: its message is one sentence that names the file and the remedy."""


@contextmanager
def one_sentence_errors():
    """End the script in one sentence on standard error, without a traceback, where the user can mend what is wrong.

    Raises:
        SystemExit: with code 2 after an `InputError` or a disk that is full or closed to us, 130 after Ctrl-C.
    """
    script = Path(sys.argv[0]).name
    try:
        yield
    except InputError as error:
        print(f"{script}: error: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        where = error.filename or "a file"
        print(
            f"{script}: error: {where} cannot be written ({error.strerror}): make room or choose another folder",
            file=sys.stderr,
        )
        sys.exit(2)
    except KeyboardInterrupt:
        print(f"{script}: interrupted: run the same command again to go on", file=sys.stderr, flush=True)
        os._exit(130)  # an orderly exit can crash: threads of the backend are still at work on the batch
