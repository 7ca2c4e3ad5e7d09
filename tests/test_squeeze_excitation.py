"""The squeeze-and-excitation block against the paper's equations, written in NumPy."""

import keras
import numpy as np
import pytest

from models.squeeze_excitation import SqueezeExcitation


def built(channels, ratio=16):
    block = SqueezeExcitation(ratio)
    block.build((None, None, None, channels))
    return block


def randomise(block, rng):
    block.set_weights([rng.normal(size=weight.shape) for weight in block.weights])


def test_equals_the_equations_of_the_paper():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 3, 4, 8)).astype(np.float32)
    block = built(8, ratio=2)
    randomise(block, rng)
    w1, b1, w2, b2 = block.get_weights()
    squeezed = x.sum(axis=(1, 2)) / (3 * 4)
    gates = 1 / (1 + np.exp(-(np.maximum(squeezed @ w1 + b1, 0) @ w2 + b2)))
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(block(x)), x * gates.reshape(2, 1, 1, 8), rtol=1e-4, atol=1e-6
    )


def test_fresh_block_is_near_the_identity():
    x = np.random.default_rng(0).normal(scale=100, size=(2, 5, 5, 32)).astype(np.float32)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(built(32)(x)), x, rtol=0.02)


@pytest.mark.parametrize(("channels", "ratio", "units"), [(64, 16, 4), (47, 16, 2), (3, 16, 1), (8, 1, 8)])
def test_bottleneck_has_a_share_of_the_channels_and_at_least_one_unit(channels, ratio, units):
    shapes = [tuple(weight.shape) for weight in built(channels, ratio).weights]
    assert shapes == [(channels, units), (units,), (units, channels), (channels,)]


def test_saved_block_gives_the_same_outputs(tmp_path):
    rng = np.random.default_rng(0)
    block = SqueezeExcitation(ratio=2, name="gate")
    inputs = keras.Input((4, 4, 6))
    network = keras.Model(inputs, block(inputs))
    randomise(block, rng)
    network.save(tmp_path / "network.keras")
    loaded = keras.saving.load_model(tmp_path / "network.keras")
    assert loaded.get_layer("gate").ratio == 2
    x = rng.normal(size=(2, 4, 4, 6)).astype(np.float32)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(loaded(x)), keras.ops.convert_to_numpy(network(x)))


def test_computes_in_the_precision_of_its_policy():
    block = SqueezeExcitation(dtype="mixed_bfloat16")
    assert block(keras.Input((4, 4, 8))).dtype == "bfloat16"
    assert block.reduce.compute_dtype == block.expand.compute_dtype == "bfloat16"
    assert {weight.dtype for weight in block.weights} == {"float32"}


def test_training_reaches_both_dense_layers():
    keras.utils.set_random_seed(0)
    block = SqueezeExcitation(ratio=2)
    inputs = keras.Input((4, 4, 8))
    network = keras.Model(inputs, block(inputs))
    network.compile(optimizer=keras.optimizers.SGD(1.0), loss="mse")
    x = np.random.default_rng(0).uniform(1, 5, size=(4, 4, 4, 8)).astype(np.float32)
    before = block.get_weights()
    for _ in range(2):  # the zero kernel of `expand` keeps the first step's gradient from `reduce`
        network.train_on_batch(x, np.zeros_like(x))
    assert all((old != new).any() for old, new in zip(before, block.get_weights(), strict=True))


def test_learning_rate_factor_changes_the_steps_and_not_the_start():
    x = np.random.default_rng(0).normal(size=(4, 3, 3, 32)).astype(np.float32)
    moved = {}
    for factor in (1.0, 10.0):
        keras.utils.set_random_seed(0)
        inputs = keras.Input((3, 3, 32))
        block = SqueezeExcitation(16, factor)
        model = keras.Model(inputs, block(inputs))
        np.testing.assert_allclose(model.predict(x, verbose=0), x / (1 + np.exp(-4)), rtol=1e-5)
        model.compile(keras.optimizers.Adam(1e-3), "mse")
        model.train_on_batch(x, np.zeros_like(x))
        moved[factor] = factor * block.expand.bias.numpy() - 4
    np.testing.assert_allclose(moved[1.0], -1e-3, rtol=1e-2)
    np.testing.assert_allclose(moved[10.0], -1e-2, rtol=1e-2)
