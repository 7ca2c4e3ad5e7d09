"""Files that appear whole or not at all."""

import os
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path):
    """Give a name to write to; the file takes its real name only once the block has ended well.

    Args:
        path: where the file is to stand; its folder is made if need be.

    Yields:
        A path beside it with the same suffixes (Keras and OpenCV choose the format by them). It is the same every time,
        so that what a killed run left there is written over.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".part.{path.name}")
    try:
        yield part
        os.replace(part, path)
    except OSError as error:
        if error.errno and not error.filename:
            error.filename = str(path)  # a disk that fills up does not say while writing what
        raise
    finally:
        part.unlink(missing_ok=True)
