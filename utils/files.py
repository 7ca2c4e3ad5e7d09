"""Atomic writes, and locks so that two processes do not write the same file."""

import errno
import json
import os
import secrets
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from utils.errors import InputError

TEMPORARY = ".part."


@contextmanager
def atomic_write(path, flush=True):
    """Write a file under a temporary name. It gets its real name when the block ends without an error.

    Args:
        path: the file to write. Its folder is created if necessary.
        flush: write the content to the disk before the file gets its name. So after a power cut there is the old file
            or the new one, never an empty one. Too slow for thousands of small files that are quickly made again.

    Yields:
        A path beside it with the same suffixes, as Keras and OpenCV choose the format by them. The path is random, so
        that nobody can put a link there. `remove_parts` removes such files of killed runs.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{TEMPORARY}{secrets.token_hex(4)}.{path.name}")
    try:
        part.touch(exist_ok=False)
        yield part
        if flush:
            with open(part, "r+b") as file:  # Windows flushes only what is open for writing
                os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        if error.errno and not error.filename:
            error.filename = str(path)  # the error of a full disk does not name the file
        raise
    finally:
        part.unlink(missing_ok=True)


def write_json(path, content):
    """Write a JSON file of indented lines; see `atomic_write`.

    Args:
        path: the file to write.
        content: any argument of `json.dumps`.
    """
    with atomic_write(path) as part:
        part.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def write_table(path, frame):
    """Write a CSV file without the index of its rows; see `atomic_write`.

    Args:
        path: the file to write.
        frame: a `pandas.DataFrame`. Its texts may hold surrogates, from file names that are not UTF-8.
    """
    with atomic_write(path) as part:
        frame.to_csv(part, index=False, errors="surrogateescape")


def remove_parts(paths):
    """Remove temporary files of killed runs for the given paths. No other process may write these paths meanwhile."""
    names = {}
    for path in map(Path, paths):
        names.setdefault(path.parent, set()).add(path.name)
    for folder in filter(Path.is_dir, names):
        for part in folder.glob(f"{TEMPORARY}*"):
            if part.name.removeprefix(TEMPORARY).partition(".")[2] in names[folder]:
                part.unlink(missing_ok=True)


def keras_home():
    """The folder where Keras looks for keras.json and keeps the weights that it downloads."""
    if "KERAS_HOME" in os.environ:
        return Path(os.environ["KERAS_HOME"]).expanduser()
    home = os.path.expanduser("~")
    return Path(home if os.access(home, os.W_OK) else "/tmp") / ".keras"


def lock(path, timeout=0):
    """Take a lock against other processes on this machine, and on other machines if the file system supports it.

    The lock ends with the process. Its file stays, because removing it could break the lock of another process.

    Args:
        path: file of the lock. Its folder is created if necessary.
        timeout: seconds to wait for another process; -1 for as long as it takes.

    Returns:
        An object with `release()`, also a context manager; None if another process has the lock.

    Raises:
        InputError: if the file system has no locks, or the file is a link.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The fallback, a soft lock, would stay after a killed process.
    file_lock = FileLock(path, fallback_to_soft=False)
    try:
        file_lock.acquire(timeout=timeout)
    except Timeout:
        return None
    except (NotImplementedError, OSError) as error:
        if isinstance(error, OSError) and error.errno == errno.ELOOP:
            raise InputError(f"{path} is a link, and locking would change its target: remove it") from None
        without_locks = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP)  # the last on macOS
        if isinstance(error, OSError) and error.errno not in without_locks:
            raise
        raise InputError(
            f"{path.parent} is on a file system without locks ({error}): "
            f"mount it with flock or choose a folder on another disk"
        ) from None
    return file_lock
