"""Training on one and on several devices, parts of the CPU: what test_devices.py runs in a process of its own."""

from dataclasses import replace
from functools import partial

import jax
import keras
import numpy as np
import pandas as pd
import pytest

import training
from config import PRESETS
from data.batches import Batches
from data.images import write_image
from models import bce_dice, unet
from models.squeeze_excitation import SqueezeExcitation
from pipeline.devices import say_once, set_devices_and_precision, train_on
from pipeline.fitting import fit
from utils.errors import InputError

SIDE = 16
SAME = {"rtol": 2e-5, "atol": 1e-6}  # sums of float32 in another order


@pytest.fixture(autouse=True)
def one_device_again():
    yield
    train_on(1)


def pictures(count):
    """Random images, and masks or labels that depend on them."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, SIDE, SIDE, 3), np.uint8)
    return images, np.where(images[..., 0] > 127, 255, 0).astype(np.uint8)


def train_unet(devices, folder, epochs=1, callbacks=()):
    """Train a U-Net with batch normalisation in batches of 4; its history, and its masks of 3 images."""
    keras.utils.set_random_seed(0)
    assert train_on(devices) == devices
    network = unet(SIDE, 2, 4, batch_norm=True, batch_norm_momentum=0.5)
    network.compile(keras.optimizers.Adam(1e-2), bce_dice)
    images, masks = pictures(9 + 5)
    make = partial(Batches, batch_size=4, workers=2)
    batches = make(images[:9], masks[:9], shuffle=True), make(images[9:], masks[9:])
    plateau = keras.callbacks.ReduceLROnPlateau(factor=0.5, patience=1)
    history = fit(network, *batches, epochs, folder, callbacks=[plateau, *callbacks])
    predicted = network.predict_on_batch(images[:3])
    train_on(1)
    return history, predicted


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What `train_unet` gives on one device."""
    return train_unet(1, tmp_path_factory.mktemp("alone"))


# The last batch holds a single image; four images are unequal parts for three devices.
@pytest.mark.parametrize("devices", [3, 4])
def test_the_first_epoch_of_a_unet_is_that_of_one_device(tmp_path, alone, devices):
    history, predicted = train_unet(devices, tmp_path)
    history_alone, predicted_alone = alone
    np.testing.assert_allclose(history[["loss", "val_loss"]], history_alone[["loss", "val_loss"]], **SAME)
    np.testing.assert_allclose(predicted, predicted_alone, atol=1e-4)


def test_an_interrupted_training_goes_on(tmp_path, capsys):
    class Break(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise InterruptedError

    with pytest.raises(InterruptedError):
        train_unet(3, tmp_path / "broken", epochs=3, callbacks=[Break()])
    resumed, _ = train_unet(3, tmp_path / "broken", epochs=3)
    assert "going on after epoch 2" in capsys.readouterr().out
    unbroken, _ = train_unet(3, tmp_path / "unbroken", epochs=3)
    pd.testing.assert_frame_equal(resumed, unbroken, rtol=1e-4)


def tiny_classifier(config):
    """A network of what the real ones have: batch normalisation, squeeze-and-excitation, dropout, an L1 penalty."""
    crops = keras.Input((SIDE, SIDE, 3))
    x = keras.layers.Conv2D(8, 3, strides=2, use_bias=False, name="conv")(keras.layers.Rescaling(1 / 255)(crops))
    x = keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=0.5)(x))
    x = SqueezeExcitation(4, config.se_lr_factor)(x)
    penalty = keras.regularizers.L1(config.head_l1)
    x = keras.layers.Dense(8, activation="relu", kernel_regularizer=penalty, name="hidden")(
        keras.layers.GlobalAveragePooling2D()(x)
    )
    x = keras.layers.Dropout(config.head_dropout)(x)
    return keras.Model(crops, keras.layers.Dense(3, activation="softmax", name="diagnosis")(x))


def test_the_whole_recipe_gives_what_it_gives_on_one_device(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "build_classifier", tiny_classifier)
    config = replace(
        PRESETS["fine_tuned"], image_size=SIDE, crop_border=0.0, batch_size=4, epochs=2, frozen_epochs=1, folds=2
    )
    crops, labels = {}, {}
    for split, count in {"training": 11, "validation": 5}.items():
        images, _ = pictures(count)
        crops[split] = [tmp_path / split / f"{k}.png" for k in range(count)]
        for path, image in zip(crops[split], images, strict=True):
            write_image(path, image)
        labels[split] = np.eye(3, dtype=np.float32)[np.arange(count) % 3]
    histories = {}
    for used in (1, 2):
        reused_classifier = training.ReusedClassifier(replace(config, devices=used, mixed_precision="float32"))
        for fold in (1, 2):  # the second from where the first began
            batches = training.make_batches(config, crops, labels)
            folder = tmp_path / f"{used}_{fold}"
            histories[used, fold] = training.fit_in_phases(
                config, *reused_classifier.untrained(), batches, folder, {0: 1, 1: 2, 2: 1}
            )
    for fold in (1, 2):
        columns = ["loss", "val_loss", "cross_entropy", "val_cross_entropy"]  # an accuracy jumps by rounding
        pd.testing.assert_frame_equal(histories[2, fold][columns], histories[1, 1][columns], rtol=1e-3)
        ours, theirs = (histories[used, fold].loc[0, columns] for used in (2, 1))
        np.testing.assert_allclose(list(ours), list(theirs), **SAME)


def test_each_device_computes_its_part_alone():
    images = np.zeros((8, SIDE, SIDE, 3), np.float32)
    work = {}
    for devices in (1, 4):
        train_on(devices)
        network = unet(SIDE, 2, 4)
        weights = [[variable.value for variable in variables] for variables in (network.trainable_variables, [])]
        step = jax.jit(lambda weights, images, network=network: network.stateless_call(*weights, images)[0])
        work[devices] = step.lower(weights, images).compile().cost_analysis()["flops"]
    assert work[4] == pytest.approx(work[1] / 4, rel=0.1)


def test_more_devices_than_there_are_are_refused():
    with pytest.raises(InputError, match=r"devices = 5, but jax sees 4 \(cpu:0, cpu:1, cpu:2, cpu:3\): take fewer"):
        train_on(5)


def test_all_that_are_visible_are_used_and_named(capsys):
    say_once.cache_clear()
    set_devices_and_precision(PRESETS["sample"])
    assert "on 4 cpus, float32" in capsys.readouterr().out
