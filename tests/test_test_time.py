"""Predictions averaged over the flips and turns of the image."""

import keras
import numpy as np
import pytest

from models.test_time import over_flips_and_turns

SIDE = 6
WAYS = [(quarters, flip) for quarters in range(4) for flip in (False, True)]


def network(outputs):
    """A small network of random weights that sees how an image lies: of maps, or of classes."""
    keras.utils.set_random_seed(0)
    layers = {
        "maps": [keras.layers.Conv2D(1, 3, padding="same", activation="sigmoid")],
        "classes": [keras.layers.Flatten(), keras.layers.Dense(3, activation="softmax")],
    }
    return keras.Sequential([keras.Input((SIDE, SIDE, 3)), keras.layers.Rescaling(1 / 255), *layers[outputs]])


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE, 3), np.uint8)


def outputs_of(model, images):
    """What a network gives, without the graph of `predict`."""
    return keras.ops.convert_to_numpy(model(images.copy(), training=False))


def turn(images, quarters, flip):
    """Mirror images left-right, then turn them, by numpy."""
    return np.rot90(images[:, :, ::-1] if flip else images, quarters, axes=(1, 2))


@pytest.mark.parametrize("outputs", ["maps", "classes"])
def test_equals_the_mean_of_eight_predictions(images, outputs):
    plain = network(outputs)
    expected = np.zeros((3, *plain.output_shape[1:]))
    for quarters, flip in WAYS:
        prediction = outputs_of(plain, turn(images, quarters, flip))
        if outputs == "maps":
            prediction = np.rot90(prediction, -quarters, axes=(1, 2))
            prediction = prediction[:, :, ::-1] if flip else prediction
        expected += prediction / 8
    np.testing.assert_allclose(outputs_of(over_flips_and_turns(plain), images), expected, rtol=1e-5)


@pytest.mark.parametrize("way", WAYS)
def test_turns_with_the_image(images, way):
    averaged, plain = over_flips_and_turns(network("maps")), network("maps")
    maps = outputs_of(averaged, images)
    np.testing.assert_allclose(outputs_of(averaged, turn(images, *way)), turn(maps, *way), rtol=1e-5)
    if way != (0, False):
        turned = outputs_of(plain, turn(images, *way))
        assert not np.allclose(turned, turn(outputs_of(plain, images), *way), rtol=1e-2), "nothing to average"


def test_classes_do_not_depend_on_how_the_image_lies(images):
    averaged = over_flips_and_turns(network("classes"))
    expected = outputs_of(averaged, images)
    for way in WAYS:
        np.testing.assert_allclose(outputs_of(averaged, turn(images, *way)), expected, rtol=1e-5)
