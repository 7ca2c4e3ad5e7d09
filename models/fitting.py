"""One way to train for both stages: reproducible epochs, the best weights kept, a table of the history."""

import sys

import keras
import pandas as pd

from data.files import whole_file
from errors import InputError


def fit(model, training, validation, epochs, patience=None, callbacks=(), class_weight=None):
    """Train a compiled model and leave it with the weights of its best validation loss.

    Args:
        model: a compiled `keras.Model`.
        training, validation: `data.batches.Batches` with targets.
        epochs: epochs at the most.
        patience: epochs without better validation loss after which training ends; None to use all epochs.
        callbacks: further Keras callbacks.
        class_weight: dictionary from class index to weight, or None.

    Returns:
        Data frame with a row an epoch: `epoch` from 1, losses and metrics of both splits.

    Raises:
        InputError: if no epoch had a finite validation loss.
    """
    # With its variables already there, TensorFlow traces the training step once instead of twice.
    model.optimizer.build(model.trainable_variables)
    history = model.fit(
        training,
        validation_data=validation,
        epochs=epochs,
        shuffle=False,  # `training` shuffles itself, so that an epoch's order does not depend on the threads
        class_weight=class_weight,
        callbacks=[
            keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: setattr(training, "epoch", epoch)),
            keras.callbacks.EarlyStopping(
                monitor="val_loss", patience=patience or epochs, restore_best_weights=True, mode="min"
            ),
            *callbacks,
        ],
        verbose="auto" if sys.stdout.isatty() else 2,
    )
    table = pd.DataFrame({"epoch": [epoch + 1 for epoch in history.epoch], **history.history})
    if not table["val_loss"].notna().any():
        raise InputError("the validation loss was never a number: lower the learning rate")
    return table


def save_network(model, path):
    """Save a model for use: architecture and weights, without the optimizer, whose moments are twice as large."""
    with whole_file(path) as part:
        keras.Model(model.inputs, model.outputs, name=model.name).save(part)
