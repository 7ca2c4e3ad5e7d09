"""What the six stage scripts do alike: read and keep settings, find what earlier stages left, end in one sentence."""

import json
import os
import zipfile
from dataclasses import asdict
from pathlib import Path

from config import parse_args
from data.files import whole_file
from errors import InputError, one_sentence_errors


def run(main, description):
    """Call a stage's `main(config)` with the settings of the command line.

    Args:
        main: the stage. It imports Keras itself, so that `--help` and usage errors answer at once.
        description: the script's docstring, shown by `--help`.

    Raises:
        SystemExit: with code 2 and one sentence on standard error after an `InputError`.
    """
    # TensorFlow's start-up notes would bury the lines that matter; its errors still arrive as exceptions.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with one_sentence_errors():
        main(parse_args(description))


def save_settings(config, path):
    """Keep the settings that made a stage's files beside them, as JSON."""
    with whole_file(path) as part:
        part.write_text(json.dumps(asdict(config), indent=2, default=str) + "\n")


def need(path, script):
    """Make sure that an earlier stage has left its file.

    Raises:
        InputError: naming the script that makes it.
    """
    if not Path(path).exists():
        raise InputError(f"{path} is missing: run `python {script}` with the same --run-dir first")
    return Path(path)


def load_network(path, script):
    """Load a network that an earlier stage has left.

    Raises:
        InputError: if it is missing or damaged, naming the script that makes it.
    """
    need(path, script)
    import keras

    import models  # noqa: F401  registers the layers that the file names

    try:
        return keras.saving.load_model(path, compile=False)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path} is damaged ({reason}): run `python {script}` again") from None


def crop_paths(config, split, image_ids, size):
    """Paths of the crops that `resize.py` made, in the order of `image_ids`.

    Raises:
        InputError: if one is missing, unreadable, or not size x size pixels.
    """
    from data.images import check_images

    paths = [need(config.run_dir / "crops" / split / f"{image_id}.png", "resize.py") for image_id in image_ids]
    for path, found in zip(paths, check_images(paths, config.workers), strict=True):
        if found != (size, size):
            raise InputError(
                f"{path} is {found[1]}x{found[0]} pixels, not {size}x{size}: "
                f"run resize.py and training.py with the same --image-size"
            )
    return paths
