"""Epochs whose figures are no numbers: best epoch, early stopping and plateau agree on them."""

import math

import keras
import numpy as np
import pandas as pd
import pytest

from data.batches import Batches
from models.cross_entropy import MeanAUC
from pipeline.fitting import Checkpoints, Plateau, fit
from pipeline.logs import epoch_line
from utils.errors import InputError

NAN = math.nan


def tiny_model(metrics=()):
    """A compiled softmax regression of three classes."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4, 4, 3))
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(3, activation="softmax")(x))
    model.compile(keras.optimizers.SGD(0.01), "categorical_crossentropy", metrics=list(metrics))
    return model


def batches():
    images = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 3), dtype=np.uint8)
    return Batches(images, np.eye(3, dtype=np.float32)[[0, 1, 2, 0, 1, 2]], batch_size=6)


def history_of(losses, areas=None):
    areas = areas or losses
    return [{"epoch": k, "val_loss": a, "val_auc": b} for k, (a, b) in enumerate(zip(losses, areas, strict=True), 1)]


@pytest.mark.parametrize(
    ("monitor", "losses", "areas", "best"),
    [
        ("val_loss", [NAN, 3, 2, 2], None, 3),
        ("val_loss", [3, NAN, 4, math.inf], None, 1),
        ("val_loss", [2, -math.inf, 1], None, 3),
        ("val_loss", [NAN, NAN], None, None),
        ("val_auc", [NAN, 1, 1, NAN], [0.9, 0.2, 0.5, 0.8], 3),
        ("val_auc", [1, 1, 1], [NAN, 0.4, 0.4], 2),
        ("val_auc", [NAN, NAN], [0.0, 0.0], None),
    ],
)
def test_the_best_epoch_is_one_of_numbers(tmp_path, monitor, losses, areas, best):
    checkpoints = Checkpoints(tmp_path, [], monitor)
    checkpoints.history = history_of(losses, areas)
    assert checkpoints.best_epoch() == best


def test_a_second_training_adds_no_variables_to_an_optimizer_of_float16(tmp_path):
    model = tiny_model()
    model.compile(keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam()), "categorical_crossentropy")
    model.optimizer.build(model.trainable_variables)
    before = len(model.optimizer.variables)
    for fold in "12":
        fit(model, batches(), batches(), 1, tmp_path / fold)
    assert len(model.optimizer.variables) == before, "a checkpoint of one process would not fit the next"


@pytest.mark.parametrize(
    ("losses", "stops_after"),
    [
        ([NAN, 3, 3, 3], 4),
        ([3, NAN, NAN, 1], 3),
        ([3, NAN, 2, NAN, NAN], 5),
        ([NAN, NAN, 1], 2),
        ([4, 3, 2, 1], None),
    ],
)
def test_an_epoch_without_a_number_is_one_without_improvement(tmp_path, losses, stops_after):
    checkpoints, stopped = Checkpoints(tmp_path, [], patience=2), None
    for epoch in range(1, len(losses) + 1):
        checkpoints.history = history_of(losses[:epoch])
        if checkpoints.out_of_patience():
            stopped = stopped or epoch
    assert stopped == stops_after


@pytest.mark.parametrize(
    ("losses", "lowered_after"), [([NAN, 3, 2, 1], []), ([NAN, NAN, 3, 2], [2]), ([3, NAN, NAN, 2, 2, 2], [3, 6])]
)
def test_a_plateau_counts_the_same_epochs(losses, lowered_after):
    plateau = Plateau(factor=0.5, patience=2)
    plateau.set_model(tiny_model())
    plateau.on_train_begin()
    rates = []
    for epoch, loss in enumerate(losses):
        logs = {"val_loss": loss}
        plateau.on_epoch_end(epoch, logs)
        rates.append(float(plateau.model.optimizer.learning_rate))
        assert logs["val_loss"] is loss, "the history holds what was measured"
        assert logs["learning_rate"] == pytest.approx(rates[-2] if epoch else 0.01)
    falls = [k + 1 for k, (a, b) in enumerate(zip([0.01, *rates], rates, strict=False)) if b < 0.9 * a]
    assert falls == lowered_after


class Spoil(keras.callbacks.Callback):
    """Make the weights NaN before the validation of some epochs, and numbers again after it."""

    def __init__(self, epochs):
        super().__init__()
        self.epochs, self.epoch, self.kept = epochs, None, None

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_test_begin(self, logs=None):
        if self.epoch in self.epochs:
            self.kept = self.model.get_weights()
            self.model.set_weights([np.full_like(weight, NAN) for weight in self.kept])

    def on_test_end(self, logs=None):
        if self.kept is not None:
            self.model.set_weights(self.kept)
            self.kept = None


@pytest.mark.parametrize("monitor", ["val_loss", "val_auc"])
def test_a_network_of_nan_is_refused_whatever_is_watched(tmp_path, monitor):
    with pytest.raises(InputError, match=f"{tmp_path} has no epoch in which val_loss and {monitor} are finite"):
        fit(tiny_model([MeanAUC(2, 3)]), batches(), batches(), 3, tmp_path, monitor, callbacks=[Spoil(range(9))])


def test_a_training_that_begins_with_nan_stops_in_time_and_keeps_its_best_epoch(tmp_path):
    model = tiny_model()
    history = fit(model, batches(), batches(), 9, tmp_path, patience=3, callbacks=[Spoil({0, 4, 5, 6, 7, 8})])
    assert history["val_loss"].isna().tolist() == [True, False, False, False, True, True, True]
    kept = model.evaluate(batches()[0][0], batches()[0][1], verbose=0)
    assert kept == pytest.approx(history["val_loss"].min(), rel=1e-4)


def test_a_history_with_nan_is_gone_on_from(tmp_path):
    fit(tiny_model(), batches(), batches(), 2, tmp_path, callbacks=[Plateau(patience=2), Spoil({0})])
    history = fit(tiny_model(), batches(), batches(), 3, tmp_path, callbacks=[Plateau(patience=2)])
    assert history["epoch"].tolist() == [1, 2, 3]
    assert pd.isna(history["val_loss"][0])
    assert history["val_loss"][1:].notna().all()


def test_short_epochs_leave_no_checkpoints_and_end_with_the_same_weights(tmp_path, monkeypatch):
    def trained(folder, seconds):
        keras.utils.set_random_seed(0)
        crops = keras.Input((4, 4, 3))
        model = keras.Model(crops, keras.layers.Dense(2, activation="softmax")(keras.layers.Flatten()(crops)))
        model.compile(keras.optimizers.Adam(0.5), loss="categorical_crossentropy")  # the loss goes up and down
        batches = [Batches(images, np.eye(2)[[0, 1, 0, 1, 1, 0, 1]], batch_size=3) for images in noise]
        history = fit(model, *batches, 6, folder, checkpoint_seconds=seconds)
        return history, model.get_weights()

    noise = np.random.default_rng(0).integers(0, 255, (2, 7, 4, 4, 3), dtype=np.uint8)
    written = []
    write = Checkpoints.write
    monkeypatch.setattr(Checkpoints, "write", lambda self, *epochs: [written.append(epochs), write(self, *epochs)])
    history, weights = trained(tmp_path / "all", 0)
    assert [epoch for epoch, _ in written] == [1, 2, 3, 4, 5, 6]
    short_history, short_weights = trained(tmp_path / "none", 1000)
    assert len(written) == 6
    assert not (tmp_path / "none").exists()
    np.testing.assert_allclose(short_history, history, rtol=1e-4)
    for a, b in zip(short_weights, weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


def test_a_late_checkpoint_holds_the_best_epoch_of_the_time_before(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    checkpoints = Checkpoints(tmp_path, [], seconds=60)
    checkpoints.set_model(model := keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)]))
    model.compile()
    for epoch, (loss, seconds) in enumerate([(3, 10), (1, 10), (2, 50), (4, 10), (5, 70)]):
        model.layers[0].kernel.assign([[float(epoch + 1)]])
        clock[0] += seconds
        checkpoints.on_epoch_end(epoch, {"val_loss": loss})
        if epoch == 1:
            assert not list(tmp_path.iterdir())
        if epoch == 3:  # the fourth epoch came too soon after the third one's checkpoint
            assert {path.name for path in tmp_path.iterdir()} == {"epoch_2.npz", "epoch_3.npz", "history.csv"}
    assert {path.name for path in tmp_path.iterdir()} == {"epoch_2.npz", "epoch_5.npz", "history.csv"}
    again = Checkpoints(tmp_path, [], seconds=60)
    again.set_model(model)
    assert len(again.history) == 5
    again.restore(again.best_epoch())
    assert float(model.layers[0].kernel.numpy()[0, 0]) == 2


def test_the_line_of_an_epoch_has_five_figures_at_the_most_and_the_best_epoch(tmp_path):
    checkpoints = Checkpoints(tmp_path, [], "val_cross_entropy")
    checkpoints.history = [
        {"epoch": k, "val_loss": 1, "val_cross_entropy": value} for k, value in ((1, 0.5), (2, 0.4), (3, 0.6))
    ]
    names = ("loss", "accuracy", "auc", "cross_entropy")
    figures = {f"{prefix}{name}": 0.25 for prefix in ("", "val_") for name in names} | {"val_cross_entropy": 0.6}
    line = epoch_line(3, 12, figures, checkpoints, 4.6)
    expected = "loss 0.250, val_cross_entropy 0.600, val_accuracy 0.250, val_auc 0.250, best: 2"
    assert line == f"epoch 3/12, 5s: {expected}"
    assert len(line.replace("3/12, 5s", "100/100, 500s")) <= 100
