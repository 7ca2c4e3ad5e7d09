"""Files that appear whole or not at all, and locks that keep two processes from making the same one."""

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
    """Give a name to write to; the file takes its real name only once the block has ended well.

    Args:
        path: where the file is to stand; its folder is made if need be.
        flush: have the content on the disk before the file takes its name, so that a power cut leaves the old file or
            the new one, never an empty one. Not worth its time for thousands of small files that are soon made again.

    Yields:
        A path beside it with the same suffixes (Keras and OpenCV choose the format by them). No one can foresee it, so
        that no link can wait there for what is written. See `remove_parts` for what a killed run leaves.
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
            error.filename = str(path)  # a disk that fills up does not say while writing what
        raise
    finally:
        part.unlink(missing_ok=True)


def write_json(path, content):
    """Write a JSON file of indented lines; see `atomic_write`.

    Args:
        path: where the file is to stand.
        content: what `json.dumps` takes.
    """
    with atomic_write(path) as part:
        part.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def write_table(path, frame):
    """Write a CSV file without the index of its rows; see `atomic_write`.

    Args:
        path: where the file is to stand.
        frame: a `pandas.DataFrame`. Its texts may hold bytes that are no UTF-8, as the names of files may.
    """
    with atomic_write(path) as part:
        frame.to_csv(part, index=False, errors="surrogateescape")


def remove_parts(paths):
    """Remove what killed runs left of some files; to be called while nothing else writes them."""
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
    """Take a lock that other processes respect, on this machine or, where the file system has locks, on others.

    It ends with the process, however it ends. The file stays: who removes it may break the lock of another.

    Args:
        path: file of the lock; its folder is made if need be.
        timeout: seconds to wait for another process; -1 for as long as it takes.

    Returns:
        An object with `release()`, also a context manager; None if another process has the lock.

    Raises:
        InputError: if the file system has no locks, or the file is a link.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # A soft lock, the fallback, would outlive a killed process.
    taken = FileLock(path, fallback_to_soft=False)
    try:
        taken.acquire(timeout=timeout)
    except Timeout:
        return None
    except (NotImplementedError, OSError) as error:
        if isinstance(error, OSError) and error.errno == errno.ELOOP:
            raise InputError(f"{path} is a link, and no file would be safe where it leads: remove it") from None
        if isinstance(error, OSError) and error.errno not in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
            raise
        raise InputError(
            f"{path.parent} is on a file system without locks ({error}): "
            f"mount it with flock or choose a --run-dir on another disk"
        ) from None
    return taken
