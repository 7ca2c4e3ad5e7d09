"""How a script starts and ends: settings from the command line, the backend, one sentence where it cannot go on."""

import json
import os
import tempfile
from contextlib import contextmanager
from importlib.util import find_spec

from config import Config, parse_args
from data.errors import InputError, one_sentence_errors
from data.files import keras_home
from pipeline.allocator import keep_freed_memory

BACKENDS = ("tensorflow", "jax", "torch")
# What backends say where memory runs out, beside the names of exceptions of TensorFlow and PyTorch.
OUT_OF_MEMORY = ("ResourceExhaustedError", "OutOfMemoryError")
OUT_OF_MEMORY_TEXTS = ("resource_exhausted", "out of memory", "out_of_memory", "alloc_failed", "allocate memory")


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
    with one_sentence_errors(), memory_errors():
        config = parse_args(description, settings)
        choose_backend()
        main(config)


def choose_backend():
    """Set KERAS_BACKEND to what it is already, to `backend` of keras.json, or to TensorFlow.

    Of that file nothing else counts: `models` sets the rest. Keras reads it at its import, and raises where it cannot.

    Raises:
        InputError: if the backend is not installed, or Keras would refuse the file.
    """
    if os.path.expanduser("~") == "~":  # a user without home: Keras would make a folder of that name in this one
        os.environ["HOME"] = tempfile.gettempdir()
    file = keras_home() / "keras.json"
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # then Keras takes its own defaults
        kept = {}
    sound = isinstance(kept, dict) and (
        kept.get("floatx", "float32") in ("float16", "float32", "float64")
        and kept.get("image_data_format", "channels_last") in ("channels_last", "channels_first")
        and isinstance(kept.get("epsilon", 1e-7), float)
        and not kept.get("nnx_enabled")
    )
    if not sound:
        raise InputError(f"{file} holds settings that Keras refuses: mend or remove it")
    of_file = kept.get("backend", BACKENDS[0])
    backend = os.environ.get("KERAS_BACKEND") or of_file
    if backend not in BACKENDS or find_spec(backend) is None:
        where = "KERAS_BACKEND" if os.environ.get("KERAS_BACKEND") else f"backend in {file}"
        raise InputError(
            f"{where} = {backend!r} is not there: install it, or set KERAS_BACKEND to {', '.join(BACKENDS)}"
        )
    os.environ["KERAS_BACKEND"] = backend


@contextmanager
def memory_errors():
    """Raise an `InputError` where memory runs out, be it the processor's or the GPU's, and whatever the backend."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        named = isinstance(error, MemoryError) or type(error).__name__ in OUT_OF_MEMORY
        if not named and not any(text in str(error).lower() for text in OUT_OF_MEMORY_TEXTS):
            raise
        raise InputError(
            "memory ran out: pass a smaller --batch-size (of the U-Net --unet-batch-size), and where other processes "
            "use the same GPU, let them end or see docs/machines.md"
        ) from None
