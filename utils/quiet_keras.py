"""Import Keras without the notes that TensorFlow prints at its import: `from utils.quiet_keras import keras`."""

import os
import sys

from utils.held_stderr import held, hold_stderr, release_stderr

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
held_by_a_script, failed = bool(held), True  # a script decides itself whether to show the notes
hold_stderr()
try:
    import keras

    if keras.backend.backend() == "tensorflow":
        import tensorflow

        tensorflow.config.list_physical_devices()  # it prints more notes when it first looks for a GPU
    failed = False
except ModuleNotFoundError as error:
    if sys.argv[0] != "-m":
        raise
    # `python -m models.export` imports the package `models` before the module can handle an error.
    print(f"error: {error.name} is not installed: install it, or set KERAS_BACKEND to another backend", file=sys.stderr)
    sys.exit(2)
finally:
    if not held_by_a_script:
        release_stderr(show=failed)

__all__ = ["keras"]
