"""The exception for everything that the user can correct, and the ways in which a script ends."""

import errno
import os
import re
import shlex
import signal
import sys
from contextlib import contextmanager, suppress
from pathlib import Path

from utils.held_stderr import release_stderr

# Disk errors that the user can correct: full, over quota, not permitted, read-only, a file in place of a folder.
DISK_ERRORS = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS),
    *(errno.EEXIST, errno.ENOTDIR, errno.ENAMETOOLONG),
)


options_for_others = {}  # see `add_to_commands`


class InputError(Exception):
    """Bad input. The message is one sentence that names the file and the remedy.

    If the remedy is a script, its command is in backticks, as in "run `python vote.py`". `one_sentence_errors` adds the
    options for the same run to it, so that the command can be pasted.
    """


def add_to_commands(options):
    """Add the options of this call to the commands in messages. `pipeline.command_line.start` calls this.

    Args:
        options: the options that another script needs for the same run, a dictionary from each option to its words; see
            `pipeline.settings.options_of_call`.
    """
    options_for_others.update(options)


def with_options(message):
    """A message in which each command has all options of this call."""

    def complete(match):
        missing = [words for option, words in options_for_others.items() if option not in match["command"].split()]
        return f"`{shlex.join([*shlex.split(match['command']), *(word for words in missing for word in words)])}`"

    return re.sub(r"`(?P<command>python \w+\.py[^`]*)`", complete, message) if options_for_others else message


def refuse_locked(path, error):
    """Raise an `InputError` if HDF5 could not read a file because it could not lock it.

    Args:
        path: the file.
        error: what was raised.
    """
    if "unable to lock file" in str(error):
        raise InputError(
            f"{path} is locked by another process, or its file system has no locks: wait for the end of that process, "
            f"or set HDF5_USE_FILE_LOCKING=FALSE"
        ) from None


def end_at_interrupt(signal_number, frame):
    """Handle SIGINT: end the process with code 130."""
    with suppress(RuntimeError, OSError):  # the signal may come in the middle of a print
        sys.stdout.flush()
    release_stderr()
    # A terminal has shown ^C, or a progress bar, on the line where the cursor is.
    start = "\n" if os.isatty(2) else ""
    command, note = "the same command again", ""
    if "--overwrite" in sys.argv:
        command, note = "the same command without --overwrite", " (it makes no output again that was not begun)"
    os.write(2, f"{start}{Path(sys.argv[0]).name}: interrupted: run {command} to go on{note}\n".encode())
    os._exit(130)


@contextmanager
def one_sentence_errors():
    """End the script with one sentence on standard error, and no traceback, after an error that the user can correct.

    Ctrl-C ends the process at once with code 130. All files are written atomically, and a normal exit could be ignored
    or crash while threads of the backend are running.

    Raises:
        SystemExit: with code 2 after an `InputError` or one of `DISK_ERRORS`; with code 141, like other programs, if
            the reader of the output has closed the pipe (`| head -1`).
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed (`>&-`): otherwise the next file that is opened gets its descriptor
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115  it stays open
    if hasattr(sys.stdout, "reconfigure"):  # so that a name that cannot be encoded is no error, as on standard error
        sys.stdout.reconfigure(errors="backslashreplace")

    script = Path(sys.argv[0]).name
    before = signal.signal(signal.SIGINT, end_at_interrupt)
    try:
        try:
            yield
        except InputError as error:
            print(f"{script}: error: {with_options(str(error))}", file=sys.stderr)
            sys.exit(2)
        except OSError as error:
            if error.errno not in DISK_ERRORS:
                raise
            what = error.filename or "a file"
            sentence = f"{what} cannot be written ({error.strerror}): make room or choose another folder"
            if error.errno in (errno.EACCES, errno.EPERM):  # to read or to write
                sentence = f"{what}: permission denied: ask its owner for access or choose another folder"
            print(f"{script}: error: {sentence}", file=sys.stderr)
            sys.exit(2)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # because Python flushes it at exit
        sys.exit(128 + signal.SIGPIPE)
    finally:
        signal.signal(signal.SIGINT, before)
