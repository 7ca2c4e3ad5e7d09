"""One way to train for both stages: reproducible epochs that can be interrupted, the best weights kept."""

import math
import time
import zipfile
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import keras
import numpy as np
import pandas as pd

from data.augment import random_view
from data.batches import bad_files_named
from models.variables import copy_values, set_values
from pipeline.logs import EpochLines, tensorboard
from pipeline.paths import CHECKPOINT_EPOCH, CHECKPOINT_HISTORY
from pipeline.settings import write_settings
from utils.errors import InputError
from utils.files import atomic_write, write_table


class Checkpoints(keras.callbacks.Callback):
    """Keep the state after a recent epoch and after the best one, so that a killed training can go on.

    A checkpoint after epoch n is `epoch_n.npz` (every variable of the model and the optimizer, in their order), then
    the rows up to n of `history.csv`, each whole or not at all: the last row always has its file. Where epochs are
    short, not each leaves a checkpoint; the best state since the last one is then kept in memory. (Keras's own
    `BackupAndRestore` keeps the last epochs and not the best one, and HDF5 on a full disk takes the interpreter down.)
    The callback comes after all in the list given to `fit` that change the learning rate.

    It also stops a training early. (Keras's own `EarlyStopping` takes the first figure it sees for the best, and no
    figure is better than NaN.)

    Args:
        folder: where the checkpoints are to stand; those that it holds already are gone on from.
        others: callbacks with a memory (learning rate on a plateau). They keep none on disk, so they are shown the
            history again.
        monitor: column of the history by which epochs are compared; see `fit`.
        patience: epochs without anything better after which training ends.
        seconds: time between two checkpoints at the least; with 0, every epoch leaves one.
    """

    def __init__(self, folder, others, monitor="val_loss", patience=math.inf, seconds=0):
        super().__init__()
        self.folder, self.others, self.monitor, self.patience = folder, others, monitor, patience
        self.seconds, self.last_written = seconds, time.monotonic()
        self.history, self.in_memory = [], {}  # from the best epoch to its variables, unless a file holds them
        if (file := folder / CHECKPOINT_HISTORY).exists():
            with self.damage_named(file):
                table = pd.read_csv(file)
                table[["val_loss", monitor]].astype(float)
                if list(table["epoch"]) != list(range(1, len(table) + 1)):
                    raise ValueError("rows are missing")
            self.history = table.to_dict("records")

    def file(self, epoch):
        """File of an epoch's variables, epochs counted from 1."""
        return self.folder / CHECKPOINT_EPOCH.format(epoch)

    def variables(self):
        """Weights, seeds, and the optimizer's state."""
        return [*self.model.variables, *self.model.optimizer.variables]

    def values(self):
        """Copies of all variables as NumPy arrays."""
        return copy_values(self.variables())

    def restore(self, epoch):
        """Bring all variables back to what they were after an epoch."""
        if epoch in self.in_memory:
            set_values(self.variables(), self.in_memory[epoch])
            return
        with self.damage_named(self.file(epoch)):
            with np.load(self.file(epoch)) as file:
                values = dict(file)
            began = str(values.pop("precision", precision()))
            if began == precision():
                set_values(self.variables(), values.values())
        if began != precision():
            raise InputError(
                f"the training in {self.folder} began in {began}, and this machine would go on in {precision()}: pass "
                f"--mixed-precision {began}, or --overwrite to start again"
            )

    @contextmanager
    def damage_named(self, file):
        """Raise an `InputError` that names the file where one cannot be read."""
        try:
            yield
        except (FileNotFoundError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
            raise InputError(
                f"{file} is missing or damaged ({error}): remove {self.folder} to start this training again"
            ) from None

    def best_epoch(self):
        """Epoch of the best value of the monitored metric, the first of equals; None if there was none.

        An epoch whose validation loss is no number is never the best: Keras gives NaN probabilities an area under the
        curve of 0, which is one.
        """
        rows = [row for row in self.history if math.isfinite(row["val_loss"]) and math.isfinite(row[self.monitor])]
        best = min if mode_of(self.monitor) == "min" else max
        return int(best(rows, key=lambda row: row[self.monitor])["epoch"]) if rows else None

    def out_of_patience(self):
        """Whether there was nothing better for too many epochs."""
        return len(self.history) - (self.best_epoch() or 0) >= self.patience

    def on_train_begin(self, logs=None):
        for row in self.history:
            for callback in self.others:
                callback.on_epoch_end(int(row["epoch"]) - 1, dict(row))
        if self.history:
            self.restore(len(self.history))

    def on_epoch_end(self, epoch, logs=None):
        self.history.append({"epoch": epoch + 1, **logs})
        best = self.best_epoch() or epoch + 1
        if time.monotonic() - self.last_written >= self.seconds:
            self.write(epoch + 1, best)
        elif best == epoch + 1:
            self.in_memory = {best: self.values()}
        self.model.stop_training |= self.out_of_patience()

    def write(self, epoch, best):
        """Write the state after an epoch, that after the best one unless its file stands, and the history."""
        for number, values in {**self.in_memory, epoch: self.values()}.items():
            if number in (epoch, best):
                with atomic_write(self.file(number)) as part:
                    np.savez(part, *values, precision=precision())
        write_table(self.folder / CHECKPOINT_HISTORY, pd.DataFrame(self.history))
        for path in set(self.folder.glob(CHECKPOINT_EPOCH.format("*"))) - {self.file(epoch), self.file(best)}:
            path.unlink()
        self.in_memory, self.last_written = {}, time.monotonic()


def precision():
    """Precision of the arithmetic of the networks that are built now, for example "bfloat16"."""
    return keras.config.dtype_policy().compute_dtype


def mode_of(monitor):
    """Whether less or more of a column of the history is better, as Keras calls it: "min" or "max"."""
    return "max" if monitor.endswith("auc") else "min"


class Plateau(keras.callbacks.ReduceLROnPlateau):
    """Keras's own, of the validation loss; a loss that is no number is no improvement, in the first epoch either."""

    def on_epoch_end(self, epoch, logs=None):
        logs["learning_rate"] = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        self.best = math.inf if self.best is None else self.best
        loss = logs[self.monitor]
        super().on_epoch_end(epoch, {self.monitor: loss if math.isfinite(loss) else math.inf})


def warmup_and_cosine(learning_rate, epochs, warmup):
    """A learning rate that rises linearly over some epochs and then falls towards 0 along half a cosine.

    Source: Loshchilov and Hutter, "SGDR", ICLR 2017, https://arxiv.org/abs/1608.03983, equation 5 without restarts. It
    changes from epoch to epoch, not from step to step: so it depends neither on the number of steps, which differs
    between folds, nor on what a backend does between two epochs.

    Args:
        learning_rate: the highest.
        epochs: epochs in all.
        warmup: epochs of the rise.

    Returns:
        A Keras callback.
    """

    def at(epoch, _):
        middle = epoch + 0.5
        if middle < warmup:
            return learning_rate * middle / warmup
        return learning_rate * (1 + math.cos(math.pi * (middle - warmup) / (epochs - warmup))) / 2

    return keras.callbacks.LearningRateScheduler(at)


def fit(
    model,
    training,
    validation,
    epochs,
    folder,
    monitor="val_loss",
    patience=None,
    callbacks=(),
    class_weight=None,
    logs=None,
    checkpoint_seconds=0,
):
    """Train a compiled model and leave it with its best weights on the validation split.

    Where the optimizer keeps a moving average of the weights, that is what is validated and left. An epoch whose
    validation loss is NaN or infinite counts as one without anything better.

    A training that was killed goes on after its last checkpoint when it is called again with the same arguments,
    and ends as if it had not been.

    Args:
        model: a compiled `keras.Model`.
        training, validation: `data.batches.Batches` with targets.
        epochs: epochs at the most.
        folder: where the checkpoints are to stand; the caller removes it once the model is saved.
        monitor: column of the history that says which weights are best: the highest area under a curve (its name
            ends on "auc"), the lowest of anything else.
        patience: epochs without anything better after which training ends; None to use all epochs.
        callbacks: further Keras callbacks.
        class_weight: dictionary from class index to weight, or None.
        logs: folder of logs for TensorBoard, or None.
        checkpoint_seconds: time between two checkpoints at the least; with 0, every epoch leaves one.

    Returns:
        Data frame with one row per epoch: `epoch` from 1, losses and metrics of both splits.

    Raises:
        InputError: if a file cannot be read, or no epoch had numbers as validation loss and as the monitored metric.
    """
    checkpoints = Checkpoints(folder, callbacks, monitor, patience or math.inf, checkpoint_seconds)
    # In float16 Keras wraps the optimizer in one that scales the loss and has no moving average itself.
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    done = len(checkpoints.history)
    if done:
        print(f"going on after epoch {done}")
    # With its variables already there, TensorFlow traces the training step once instead of twice.
    model.optimizer.build(model.trainable_variables)
    if keras.backend.backend() != "tensorflow":
        # Otherwise Keras looks at a batch before the first epoch, and batches prefetched for that look spill into it.
        images, targets = validation[0]
        model.test_on_batch(images, targets)
        # The loss of training too, as `PriorCorrected` has another one in validation; only shapes matter here.
        model.compute_loss(images, targets, targets)
    if done < epochs and not checkpoints.out_of_patience():
        with bad_files_named(training, validation):
            model.fit(
                training,
                validation_data=validation,
                initial_epoch=done,
                epochs=epochs,
                shuffle=False,  # `training` shuffles itself, so that an epoch's order does not depend on the threads
                class_weight=class_weight,
                callbacks=[
                    keras.callbacks.LambdaCallback(
                        on_epoch_begin=lambda epoch, logs: setattr(training, "epoch", epoch)
                    ),
                    *([keras.callbacks.SwapEMAWeights()] if optimizer.use_ema else []),
                    *([tensorboard(logs)] if logs else []),  # before a plateau lowers the learning rate it writes
                    *callbacks,
                    checkpoints,
                    EpochLines(checkpoints, epochs),
                ],
                verbose=0,
            )
    if checkpoints.best_epoch() is None:
        raise InputError(
            f"the training in {folder} has no epoch in which val_loss and {monitor} are numbers: run the same command "
            f"again with a smaller learning rate and --overwrite"
        )
    checkpoints.set_model(model)
    checkpoints.restore(checkpoints.best_epoch())
    if optimizer.use_ema:
        optimizer.finalize_variable_values(model.trainable_variables)
    return pd.DataFrame(checkpoints.history)


def save_network(model, path):
    """Save a model for use: architecture and weights, without the optimizer, whose moments are twice as large."""
    with atomic_write(path) as part:
        keras.Model(model.input, model.output, name=model.name).save(part)


def save_trained(model, history, config, trained):
    """Save the results of a training: the network, its history and its settings, with the precision that was used.

    Args:
        model: the trained network.
        history: data frame with one row per epoch.
        config: the settings.
        trained: a `pipeline.paths.Trained`, the folder.
    """
    write_settings(replace(config, mixed_precision=precision()), trained.settings)
    write_table(trained.history, history)
    save_network(model, trained.network)
    print(f"wrote {trained.network}, history.csv and config.json")


def augmentation(config, border=0, cutout=0.0):
    """The augmentation that the settings ask for; see `data.augment.random_view`."""
    return partial(
        random_view,
        border=border,
        ranges={
            "flips": config.augment_flips,
            "rotation": config.augment_rotation,
            "shift": config.augment_shift,
            "zoom": config.augment_zoom,
        },
        colors={
            "brightness": config.augment_brightness,
            "contrast": config.augment_contrast,
            "saturation": config.augment_saturation,
            "hue": config.augment_hue,
        },
        cutout=cutout,
    )
