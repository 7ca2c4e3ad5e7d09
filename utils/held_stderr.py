"""Standard error held back while libraries load that print notes of their own."""

import os
import sys
import tempfile

held = {}  # "stderr": descriptor of the real standard error; "file": what takes its place


def hold_stderr():
    """Send what this process writes to standard error to a temporary file, until `release_stderr`.

    TensorFlow's notes come from C++ and go to file descriptor 2, whatever `sys.stderr` is. Without a place for a
    temporary file, or without a standard error, nothing is held back.
    """
    if held:
        return
    try:
        file = tempfile.TemporaryFile()  # noqa: SIM115  it stays open
        real = os.dup(2)
    except OSError:
        return
    sys.stderr.flush()
    os.dup2(file.fileno(), 2)
    held.update(stderr=real, file=file)


def release_stderr(show=False):
    """Give the process its standard error back; without `hold_stderr` before, do nothing.

    Args:
        show: write there what was held back.
    """
    if not held:
        return
    real, file = held.pop("stderr"), held.pop("file")
    sys.stderr.flush()
    os.dup2(real, 2)
    os.close(real)
    with file:
        if show:
            file.seek(0)
            os.write(2, file.read())
