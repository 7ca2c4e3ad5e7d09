"""Start and end of a script: settings from the command line, choice of the backend, errors in one sentence."""

import atexit
import json
import os
import signal
import sys
import tempfile
from contextlib import contextmanager
from importlib.util import find_spec

import tyro

from config import Config
from pipeline.allocator import keep_freed_memory
from pipeline.settings import check_numbers, options_of_call, parse_args
from utils.errors import InputError, add_to_commands, end_at_interrupt, one_sentence_errors
from utils.files import keras_home
from utils.held_stderr import hold_stderr, release_stderr

BACKENDS = ("tensorflow", "jax", "torch")
# How backends report that memory ran out: names of exceptions (TensorFlow, PyTorch), and words in messages.
OUT_OF_MEMORY = ("ResourceExhaustedError", "OutOfMemoryError")
OUT_OF_MEMORY_TEXTS = ("resource_exhausted", "out of memory", "out_of_memory", "alloc_failed", "allocate memory")


def start(description, settings=Config, run_dir=None):
    """Read the settings of a script and prepare its process. A script calls this before it imports anything slow.

    `--help` and typing errors end the process here. After this call, also while the script imports its modules, Ctrl-C
    and errors that the user can correct end the process with one sentence.

    Args:
        description: the script's docstring, shown by `--help`.
        settings: `Config`, a subclass of it, or another dataclass.
        run_dir: see `parse_args`.

    Returns:
        An object of that class.

    Raises:
        SystemExit: with code 2 after an error, with code 0 after `--help`.
    """
    # TensorFlow's log would hide other lines. Its errors are raised as exceptions anyway.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # Faster than TensorFlow's own kernels (docs/speed.md), but on by default only with AVX512-VNNI or similar.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    keep_freed_memory()
    with one_sentence_errors():
        if issubclass(settings, Config):
            config = parse_args(description, settings, run_dir=run_dir)
            add_to_commands(options_of_call(config, run_dir=run_dir))
            choose_backend()
        else:
            config = tyro.cli(settings, description=description)
            check_numbers(config)
    signal.signal(signal.SIGINT, end_at_interrupt)
    sys.excepthook = end_in_one_sentence
    if issubclass(settings, Config):  # TensorFlow still prints some notes at its import
        hold_stderr()
        atexit.register(release_stderr, show=True)  # for a script that ends before `run`
    return config


def run(main, config):
    """Call a script's `main(config)`.

    Raises:
        SystemExit: with code 2, after one sentence on standard error, for an error that the user can correct.
    """
    with one_sentence_errors(), memory_errors():
        show_notes = True
        try:
            devices = sys.modules.get("pipeline.devices")  # None if the script does not import Keras
            show_notes = devices is None or devices.gpu_is_unused()
        finally:
            release_stderr(show=show_notes)
        main(config)


def end_in_one_sentence(kind, error, traceback):
    """`sys.excepthook` for errors during imports: one sentence and code 2 if the user can correct the error."""

    def raise_error(error):
        raise error

    release_stderr(show=True)
    try:
        run(raise_error, error)
    except Exception:
        sys.__excepthook__(kind, error.with_traceback(traceback), traceback)


def choose_backend():
    """Set KERAS_BACKEND, unless it is set, to `backend` of keras.json, or else to TensorFlow.

    The other settings of keras.json have no effect, because `models` sets them. But Keras reads the file at its import
    and fails if a setting is invalid.

    Raises:
        InputError: if the backend is not installed, or Keras would refuse the file.
    """
    if os.path.expanduser("~") == "~":  # a user without home: Keras would make a folder called ~ in the working folder
        os.environ["HOME"] = tempfile.gettempdir()
    file = keras_home() / "keras.json"
    try:
        saved = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # then Keras takes its own defaults
        saved = {}
    valid = isinstance(saved, dict) and (
        saved.get("floatx", "float32") in ("float16", "float32", "float64")
        and saved.get("image_data_format", "channels_last") in ("channels_last", "channels_first")
        and isinstance(saved.get("epsilon", 1e-7), float)
        and not saved.get("nnx_enabled")
    )
    if not valid:
        raise InputError(f"{file} holds settings that Keras refuses: correct or remove it")
    backend = os.environ.get("KERAS_BACKEND") or saved.get("backend", BACKENDS[0])
    if backend not in BACKENDS or find_spec(backend) is None:
        where = "KERAS_BACKEND" if os.environ.get("KERAS_BACKEND") else f"backend in {file}"
        raise InputError(
            f"{where} = {backend!r} is not installed: install it, or set KERAS_BACKEND to {', '.join(BACKENDS)}"
        )
    os.environ["KERAS_BACKEND"] = backend


@contextmanager
def memory_errors():
    """Raise an `InputError` if the memory of the CPU or of the GPU runs out, with any backend."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        named = isinstance(error, MemoryError) or type(error).__name__ in OUT_OF_MEMORY
        if not named and not any(text in str(error).lower() for text in OUT_OF_MEMORY_TEXTS):
            raise
        raise InputError(
            "memory ran out: pass a smaller --batch-size to a stage (for the U-Net, --unet-batch-size); if others use "
            "the same GPU, wait for their end or see docs/machines.md"
        ) from None
