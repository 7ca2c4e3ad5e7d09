"""Hold standard error back while libraries load that print notes."""

import os
import sys
import tempfile

held = {}  # "stderr": descriptor of the real standard error; "file": the temporary file in its place


def hold_stderr():
    """Send what this process writes to standard error to a temporary file, until `release_stderr`.

    TensorFlow's notes come from C++ and go to file descriptor 2, not to `sys.stderr`. Nothing is held back if no
    temporary file can be created, or if there is no standard error.
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
    """Restore the standard error of the process. Without `hold_stderr` before, do nothing.

    Args:
        show: whether to write the held text there.
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
