"""SHA-256 sums of the files of a packed run, in the form of the command sha256sum."""

import hashlib
import shlex

from utils.errors import InputError
from utils.files import atomic_write


def sha256(path):
    """SHA-256 of a file, as hexadecimal text."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_sums(path, files):
    """Write the sums of some files of the folder that `path` is in; `sha256sum -c` checks them too."""
    lines = [f"{sha256(file)}  {file.relative_to(path.parent).as_posix()}\n" for file in sorted(files)]
    with atomic_write(path) as part:
        part.write_text("".join(lines), encoding="utf-8")


def check_sums(path):
    """Check the files that a file of sums lists.

    Raises:
        InputError: naming the first file that is missing or has another sum.
    """
    restore = f"run `git checkout {shlex.quote(str(path.parent))}`, or pack the run again"
    for line in path.read_text(encoding="utf-8").splitlines():
        expected, _, name = line.partition("  ")
        file = path.parent / name
        if not name or not file.is_file():
            raise InputError(f"{file} is missing: {restore}")
        if sha256(file) != expected:
            raise InputError(f"{file} does not have the SHA-256 of {path.name}: {restore}")
