"""The one exception that stands for something the user can correct, and the ways in which a script ends."""

import errno
import os
import re
import shlex
import signal
import sys
from contextlib import contextmanager, suppress
from pathlib import Path

from utils.held_stderr import release_stderr

# What the user can correct about a disk: full, over quota, not permitted, read-only, a file where a folder should be.
DISK_ERRORS = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS),
    *(errno.EEXIST, errno.ENOTDIR, errno.ENAMETOOLONG),
)


options_for_others = {}  # see `add_to_commands`


class InputError(Exception):
    """Bad input: its message is one sentence that names the file and the remedy.

    A remedy that is a script stands in backticks, as in "run `python vote.py`". Where the message is shown, the options
    for the same run follow, so that the command can be pasted.
    """


def add_to_commands(options):
    """Show the options of this call in the commands of messages. `pipeline.command_line.start` calls this.

    Args:
        options: those that another script needs for the same run, a dictionary from each option to its words; see
            `pipeline.settings.options_of_call`.
    """
    options_for_others.update(options)


def with_options(message):
    """A message with the options of this call in each of its commands, except those that the command has already."""

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
    with suppress(RuntimeError, OSError):  # the signal may have come in the middle of a print
        sys.stdout.flush()
    release_stderr()
    # A terminal has shown ^C, or a progress bar, on the line where the cursor is.
    start = "\n" if os.isatty(2) else ""
    os.write(2, f"{start}{Path(sys.argv[0]).name}: interrupted: run the same command again to go on\n".encode())
    os._exit(130)


@contextmanager
def one_sentence_errors():
    """End the script in one sentence on standard error, without a traceback, where the user can correct what is wrong.

    Raises:
        SystemExit: with code 2 after an `InputError` or a disk that is full or closed to us. Ctrl-C ends the process at
            once with code 130: files are whole or not there, and an orderly exit can be swallowed or crash while
            threads of the backend are at work. Where the reader of our output has gone (`| head -1`), with code 141,
            as other programs do.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed (`>&-`); what is opened takes its place, before any other file does
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115  it stays open
    if hasattr(sys.stdout, "reconfigure"):  # as standard error is: no name ends a script because it cannot be shown
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
            if error.errno in (errno.EACCES, errno.EPERM):  # be it to read or to write
                sentence = f"{what}: permission denied: ask its owner for access or choose another folder"
            print(f"{script}: error: {sentence}", file=sys.stderr)
            sys.exit(2)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python flushes at its end
        sys.exit(128 + signal.SIGPIPE)
    finally:
        signal.signal(signal.SIGINT, before)
