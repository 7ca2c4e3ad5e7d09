"""The training loop of both training stages. It is reproducible, it resumes, and it keeps the best weights."""

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
    """Save the state after a recent epoch and after the best one, so that a killed training can resume.

    A checkpoint after epoch n is `epoch_n.npz` (every variable of the model and the optimizer, in their order), and the
    rows up to n of `history.csv`, which is written last, so that its last row always has a file. If epochs are short,
    only some of them write a checkpoint, and the best state since then is kept in memory. (Keras's `BackupAndRestore`
    does not keep the best epoch, and its HDF5 files crash the interpreter on a full disk.) In the list of callbacks,
    this one must come after all that change the learning rate.

    It also stops a training early. (Keras's `EarlyStopping` takes the first value as the best even if it is NaN, and
    nothing is better than NaN.)

    Args:
        folder: folder of the checkpoints. If it holds some, training resumes from the last one.
        others: callbacks with a state (learning rate on a plateau). They do not save it, so they get the history again.
        monitor: column of the history by which epochs are compared; see `fit`.
        patience: epochs without an improvement after which training ends.
        seconds: shortest time between two checkpoints; with 0, every epoch writes one.
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
            saved_precision = str(values.pop("precision", precision()))
            if saved_precision == precision():
                set_values(self.variables(), values.values())
        if saved_precision != precision():
            raise InputError(
                f"the training in {self.folder} began in {saved_precision}, but would go on in {precision()}: pass "
                f"--mixed-precision {saved_precision}, or --overwrite to start again"
            )

    @contextmanager
    def damage_named(self, file):
        """Raise an `InputError` that names the file if it cannot be read."""
        try:
            yield
        except (FileNotFoundError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
            raise InputError(
                f"{file} is missing or damaged ({error}): remove {self.folder} to start this training again"
            ) from None

    def best_epoch(self):
        """Epoch of the best value of the monitored metric, the first of equals; None if there was none.

        An epoch whose validation loss is not finite is never the best, whatever its AUC: Keras gives NaN probabilities
        an AUC of 0.
        """
        rows = [row for row in self.history if math.isfinite(row["val_loss"]) and math.isfinite(row[self.monitor])]
        best = max if self.monitor.endswith("auc") else min
        return int(best(rows, key=lambda row: row[self.monitor])["epoch"]) if rows else None

    def out_of_patience(self):
        """Whether there was no improvement for `patience` epochs."""
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
        """Write the state after an epoch, the state after the best one unless it has a file, and the history."""
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


class Plateau(keras.callbacks.ReduceLROnPlateau):
    """`ReduceLROnPlateau` of the validation loss, in which NaN is never an improvement, not even in the first epoch."""

    def on_epoch_end(self, epoch, logs=None):
        logs["learning_rate"] = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        self.best = math.inf if self.best is None else self.best
        loss = logs[self.monitor]
        super().on_epoch_end(epoch, {self.monitor: loss if math.isfinite(loss) else math.inf})


def warmup_and_cosine(learning_rate, epochs, warmup):
    """A learning rate that rises linearly over some epochs and then falls towards 0 along half a cosine.

    Source: Loshchilov and Hutter, "SGDR", ICLR 2017, https://arxiv.org/abs/1608.03983, equation 5 without restarts. The
    rate changes only between epochs. So it does not depend on the number of steps, which differs between folds.

    Args:
        learning_rate: the highest.
        epochs: epochs in all.
        warmup: epochs of the rise.

    Returns:
        A Keras callback.
    """

    def rate(epoch, _):
        middle = epoch + 0.5
        if middle < warmup:
            return learning_rate * middle / warmup
        return learning_rate * (1 + math.cos(math.pi * (middle - warmup) / (epochs - warmup))) / 2

    return keras.callbacks.LearningRateScheduler(rate)


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
    """Train a compiled model. It then has the weights that were best on the validation split.

    If the optimizer keeps a moving average of the weights, these averages are validated, and the model gets them. An
    epoch whose validation loss is NaN or infinite counts as no improvement.

    A killed training resumes from its last checkpoint if this function is called again with the same arguments. The
    result is the same as without the interruption.

    Args:
        model: a compiled `keras.Model`.
        training, validation: `data.batches.Batches` with targets.
        epochs: epochs at the most.
        folder: folder of the checkpoints; the caller removes it once the model is saved.
        monitor: column of the history by which the best weights are chosen: by its highest value if the name ends with
            "auc", otherwise by its lowest.
        patience: epochs without an improvement after which training ends; None to use all epochs.
        callbacks: further Keras callbacks.
        class_weight: dictionary from class index to weight, or None.
        logs: folder of logs for TensorBoard, or None.
        checkpoint_seconds: shortest time between two checkpoints; with 0, every epoch writes one.

    Returns:
        Data frame with one row per epoch: `epoch` from 1, losses and metrics of both splits.

    Raises:
        InputError: if a file cannot be read, or if validation loss and monitored metric are finite in no epoch.
    """
    checkpoints = Checkpoints(folder, callbacks, monitor, patience or math.inf, checkpoint_seconds)
    # In float16 Keras wraps the optimizer in one that scales the loss and has no moving average itself.
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    done = len(checkpoints.history)
    if done:
        print(f"going on after epoch {done}")
    # If the optimizer has its variables already, TensorFlow traces the training step once instead of twice.
    if not model.optimizer.built:  # in float16, each call would add variables
        model.optimizer.build(model.trainable_variables)
    if keras.backend.backend() != "tensorflow":
        # Otherwise Keras reads a batch before the first epoch, and batches prefetched then are used in that epoch.
        images, targets = validation[0]
        model.test_on_batch(images, targets)
        # The training loss too, because `PriorCorrected` has another one in validation. Only shapes matter here.
        model.compute_loss(images, targets, targets)
    if done < epochs and not checkpoints.out_of_patience():
        with bad_files_named(training, validation):
            model.fit(
                training,
                validation_data=validation,
                initial_epoch=done,
                epochs=epochs,
                shuffle=False,  # `training` shuffles, in an order that does not depend on the number of threads
                class_weight=class_weight,
                callbacks=[
                    keras.callbacks.LambdaCallback(
                        on_epoch_begin=lambda epoch, logs: setattr(training, "epoch", epoch)
                    ),
                    *([keras.callbacks.SwapEMAWeights()] if optimizer.use_ema else []),
                    *([tensorboard(logs)] if logs else []),  # first, to log the rate before a plateau lowers it
                    *callbacks,
                    checkpoints,
                    EpochLines(checkpoints),
                ],
                verbose=0,
            )
    if checkpoints.best_epoch() is None:
        raise InputError(
            f"the training in {folder} has no epoch in which val_loss and {monitor} are finite: run the same command "
            f"again with a smaller learning rate and --overwrite"
        )
    checkpoints.set_model(model)
    checkpoints.restore(checkpoints.best_epoch())
    if optimizer.use_ema:
        optimizer.finalize_variable_values(model.trainable_variables)
    return pd.DataFrame(checkpoints.history)


def save_network(model, path):
    """Save architecture and weights of a model, without the optimizer, whose moments are twice as large."""
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
    """The augmentation function of the settings; see `data.augment.random_view`."""
    return partial(
        random_view,
        border=border,
        ranges={
            "flips": config.augment_flips,
            "rotation": config.augment_rotation,
            "shift": config.augment_shift,
            "zoom": config.augment_zoom,
        },
        blur=config.augment_blur,
        colors={
            "brightness": config.augment_brightness,
            "contrast": config.augment_contrast,
            "saturation": config.augment_saturation,
            "hue": config.augment_hue,
        },
        cutout=cutout,
    )
