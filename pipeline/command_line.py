"""How a script starts and ends: settings from the command line, the backend, one sentence where it cannot go on."""

import os
from importlib.util import find_spec

from config import Config, parse_args
from data.errors import InputError, one_sentence_errors
from pipeline.allocator import keep_freed_memory

BACKENDS = ("tensorflow", "jax", "torch")


def run(main, description, settings=Config):
    """Call a script's `main(config)` with the settings of the command line.

    Args:
        main: the script. It imports Keras itself, so that `--help` and usage errors answer at once.
        description: the script's docstring, shown by `--help`.
        settings: `Config`, or a subclass with options of the script's own.

    Raises:
        SystemExit: with code 2 and one sentence on standard error after an `InputError`.
    """
    # TensorFlow's start-up notes would bury the lines that matter; its errors still arrive as exceptions.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    keep_freed_memory()
    with one_sentence_errors():
        config = parse_args(description, settings)
        backend = os.environ.get("KERAS_BACKEND", BACKENDS[0])
        if backend not in BACKENDS or find_spec(backend) is None:
            raise InputError(f"KERAS_BACKEND = {backend!r} is not there: install it, or set {', '.join(BACKENDS)}")
        main(config)
