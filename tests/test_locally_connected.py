"""The locally connected layer against plain loops and against Keras 2."""

import keras
import numpy as np
import pytest

from models.locally_connected import LocallyConnected1D

STEPS, CHANNELS = 10, 5
ACTIVATIONS = {
    None: lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": np.tanh,
}
all_options = pytest.mark.parametrize(
    ("filters", "kernel_size", "strides", "use_bias", "activation"),
    [
        (20, 1, 1, True, "relu"),  # the two layers of the vote
        (1, 1, 1, True, "sigmoid"),
        (4, 3, 1, True, None),
        (3, 2, 2, True, "tanh"),
        (2, 3, 4, False, "relu"),  # the last step is left over
        (2, STEPS, 1, False, None),  # one position
    ],
)


def random_layer(*options, **more):
    """A layer of random weights."""
    rng = np.random.default_rng(0)
    layer = LocallyConnected1D(*options, **more)
    layer.build((None, STEPS, CHANNELS))
    layer.set_weights([rng.normal(size=weight.shape) for weight in layer.weights])
    return layer


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(1).normal(size=(4, STEPS, CHANNELS)).astype(np.float32)


@all_options
def test_equals_plain_loops(x, filters, kernel_size, strides, use_bias, activation):
    layer = random_layer(filters, kernel_size, strides, use_bias=use_bias, activation=activation)
    kernel, *bias = layer.get_weights()
    starts = range(0, STEPS - kernel_size + 1, strides)
    expected = np.zeros((len(x), len(starts), filters))
    for position, start in enumerate(starts):
        for step in range(kernel_size):
            for channel in range(CHANNELS):
                weight = kernel[position, step * CHANNELS + channel]
                expected[:, position] += x[:, start + step, channel, None] * weight
        if use_bias:
            expected[:, position] += bias[0][position]
    outputs = keras.ops.convert_to_numpy(layer(x))
    np.testing.assert_allclose(outputs, ACTIVATIONS[activation](expected), rtol=1e-4, atol=1e-5)
    assert layer.compute_output_shape((None, *x.shape[1:])) == (None, *outputs.shape[1:])


@all_options
def test_equals_keras_2(x, filters, kernel_size, strides, use_bias, activation):
    keras_2 = pytest.importorskip("tf_keras")
    options = {"use_bias": use_bias, "activation": activation}
    layer = random_layer(filters, kernel_size, strides, **options)
    old = keras_2.layers.LocallyConnected1D(filters, kernel_size, strides, implementation=1, **options)
    old.build(x.shape)
    assert [tuple(weight.shape) for weight in layer.weights] == [tuple(weight.shape) for weight in old.weights]
    old.set_weights(layer.get_weights())
    np.testing.assert_allclose(keras.ops.convert_to_numpy(layer(x)), old(x).numpy(), rtol=1e-4, atol=1e-5)


def test_config_rebuilds_the_layer():
    initializers = {"kernel_initializer": "he_normal", "bias_initializer": "ones"}
    layer = LocallyConnected1D(7, 3, 2, activation="relu", use_bias=False, name="local", **initializers)
    config = LocallyConnected1D.from_config(layer.get_config()).get_config()
    assert config == layer.get_config()
    assert (config["filters"], config["kernel_size"], config["strides"]) == (7, 3, 2)
    assert (config["activation"], config["use_bias"], config["name"]) == ("relu", False, "local")
    assert config["kernel_initializer"]["class_name"] == "HeNormal"
    assert config["bias_initializer"]["class_name"] == "Ones"


def test_saved_network_takes_any_batch_and_gives_the_same_outputs(x, tmp_path):
    inputs = keras.Input((STEPS, CHANNELS))
    layer = random_layer(4, 3, 2, activation="tanh")
    network = keras.Model(inputs, layer(inputs))
    assert network.output_shape == (None, 4, 4)
    network.save(tmp_path / "network.keras")
    loaded = keras.saving.load_model(tmp_path / "network.keras")
    for batch in (1, 4):
        expected = keras.ops.convert_to_numpy(layer(x[:batch]))
        assert expected.shape == (batch, 4, 4)
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(loaded(x[:batch])), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"padding": "same"}, "padding must be .valid., not .same."),
        ({"filters": 0}, "must be positive: 0, 3, 1"),
        ({"kernel_size": 0}, "must be positive: 4, 0, 1"),
        ({"strides": -1}, "must be positive: 4, 3, -1"),
    ],
)
def test_refuses_options_that_make_no_layer(options, message):
    with pytest.raises(ValueError, match=message):
        LocallyConnected1D(**{"filters": 4, "kernel_size": 3, **options})


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((None, CHANNELS), "steps and channels of the input must be known"),
        ((STEPS, None), "steps and channels of the input must be known"),
        ((2, CHANNELS), "2 steps, fewer than the kernel's 3"),
        ((STEPS,), "expected ndim=3, found ndim=2"),
    ],
)
def test_refuses_inputs_that_have_no_position(shape, message):
    with pytest.raises(ValueError, match=message):
        LocallyConnected1D(4, 3)(keras.Input(shape))
