"""Progress lines and TensorBoard logs of a training."""

import shutil
import time
from contextlib import suppress
from importlib.util import find_spec

import keras

from pipeline.paths import RunFolder
from utils.errors import InputError
from utils.progress import progress


def need_tensorboard(config):
    """Check that TensorBoard logs can be written, if the settings ask for them.

    Raises:
        InputError: if a package is missing, or a link in the run folder leads elsewhere.
    """
    if not config.tensorboard:
        return
    if missing := [name for name in ("tensorflow", "tensorboard") if find_spec(name) is None]:
        raise InputError(
            f"--tensorboard needs {' and '.join(missing)}: run `pip install {' '.join(missing)}`, or pass "
            f"--no-tensorboard"
        )
    folder = RunFolder(config.run_dir).tensorboard()
    if links := [path for path in (folder, *folder.glob("*")) if path.is_symlink()]:
        raise InputError(f"{links[0]} is a link, and logs would be written where it leads: remove it")


def tensorboard_folder(config, name, checkpoints):
    """Folder of the TensorBoard logs of a training; None without logs.

    A resumed training adds to its logs. Logs of an earlier training are removed, with and without new logs.

    Args:
        config: the settings.
        name: name of the network.
        checkpoints: its folder of checkpoints, which exists if the training is unfinished.
    """
    folder = RunFolder(config.run_dir).tensorboard(name)
    # A link in the run folder may lead to files that do not belong to the run.
    if not checkpoints.exists() and folder.resolve() == RunFolder(config.run_dir.resolve()).tensorboard(name):
        shutil.rmtree(folder, ignore_errors=True)
    return folder if config.tensorboard else None


def tensorboard(folder):
    """Keras's callback that writes the history for TensorBoard, without the graph of the network."""
    if keras.backend.backend() != "tensorflow":
        import tensorflow

        with suppress(RuntimeError):  # TensorFlow is initialised already
            tensorflow.config.set_visible_devices([], "GPU")  # it only writes logs, but would take all GPU memory
    return keras.callbacks.TensorBoard(folder, write_graph=False)


class EpochLines(keras.callbacks.Callback):
    """Show the progress within an epoch, see `utils.progress`, and print a line after it, instead of Keras's output.

    Args:
        checkpoints: the `pipeline.fitting.Checkpoints` of the training. This callback must come after it.
    """

    async_safe = True  # it reads no metrics within an epoch, so JAX and PyTorch need not wait for those of each step

    def __init__(self, checkpoints):
        super().__init__()
        self.checkpoints = checkpoints

    def on_epoch_begin(self, epoch, logs=None):
        self.began = time.monotonic()
        self.bar = progress(desc=f"epoch {epoch + 1}", total=self.params["steps"], unit="step", leave=False)

    def on_train_batch_end(self, batch, logs=None):
        self.bar.update()

    def on_epoch_end(self, epoch, logs=None):
        self.bar.close()
        seconds, epochs = time.monotonic() - self.began, self.params["epochs"]
        print(epoch_line(epoch + 1, epochs, logs, self.checkpoints, seconds), flush=True)


def epoch_line(epoch, epochs, figures, checkpoints, seconds):
    """One line about an epoch: four figures at the most, and which epoch is the best so far.

    Args:
        epoch, epochs: number of the epoch, from 1, and of the last epoch.
        figures: dictionary from the name of each of Keras's metrics to its value.
        checkpoints: a `pipeline.fitting.Checkpoints`.
        seconds: how long the epoch took.
    """
    names = dict.fromkeys(["loss", checkpoints.monitor, "val_accuracy", "val_auc"])
    shown = ", ".join(f"{name} {figures[name]:.3f}" for name in names if name in figures)
    return f"epoch {epoch}/{epochs}, {seconds:.0f}s: {shown}, best: {checkpoints.best_epoch() or 'none'}"
