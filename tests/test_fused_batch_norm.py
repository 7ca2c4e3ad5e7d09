"""The fused batch normalisation against Keras's own layer."""

import keras
import numpy as np
import pytest

from models.fused_batch_norm import fuse_batch_normalization, fused_call

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow" or bool(keras.distribution.list_devices("gpu")),
    reason="the fused operation is for TensorFlow on a CPU",
)
TOLERANCE = {"float32": 2e-5, "mixed_bfloat16": 2e-2}  # bfloat16 has 8 significant bits


def pair(policy, **options):
    """Two equal networks of one batch normalisation between convolutions: Keras's own, and the fused one."""
    networks = []
    for fused in (False, True):
        keras.utils.set_random_seed(0)
        inputs = keras.Input((None, None, 3))
        x = keras.layers.Conv2D(8, 3, padding="same", use_bias=False, dtype=policy)(inputs)
        x = keras.layers.BatchNormalization(
            dtype=policy, name="norm", gamma_initializer=keras.initializers.RandomUniform(0.5, 2, seed=1), **options
        )(x)
        outputs = keras.layers.Conv2D(2, 3, padding="same", dtype="float32")(x)
        network = keras.Model(inputs, outputs)
        layer = network.get_layer("norm")
        layer.moving_mean.assign(np.linspace(-0.5, 0.5, 8))
        layer.moving_variance.assign(np.linspace(0.5, 2, 8))
        networks.append(fuse_batch_normalization(network) if fused else network)
    return networks


def gradients(network, images, targets, training):
    """Outputs of a step, and the gradients of its squared error."""
    import tensorflow as tf

    with tf.GradientTape() as tape:
        outputs = network(images, training=training)
        loss = keras.ops.mean((outputs - targets) ** 2)
    values = tape.gradient(loss, network.trainable_variables)
    return keras.ops.convert_to_numpy(outputs), [keras.ops.convert_to_numpy(value) for value in values]


def close(actual, expected, tolerance):
    """Whether arrays agree, as a share of the largest value."""
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * max(1e-3, np.abs(expected).max()))


@pytest.mark.parametrize("policy", TOLERANCE)
@pytest.mark.parametrize("options", [{}, {"scale": False}, {"center": False, "epsilon": 1.001e-5}])
@pytest.mark.parametrize("size", [(4, 6, 5), (1, 1, 1)])
@pytest.mark.parametrize("mode", ["training", "frozen", "prediction"])
def test_the_fused_operation_computes_what_keras_does(policy, options, size, mode):
    rng = np.random.default_rng(0)
    images = rng.normal(1, 3, (*size, 3)).astype(np.float32)
    targets = rng.normal(0, 1, (*size, 2)).astype(np.float32)
    plain, fused = pair(policy, **options)
    for network in (plain, fused):
        network.get_layer("norm").trainable = mode != "frozen"
    expected, actual = (gradients(network, images, targets, mode != "prediction") for network in (plain, fused))
    close(actual[0], expected[0], TOLERANCE[policy])
    for value, wanted in zip(actual[1], expected[1], strict=True):
        close(value, wanted, TOLERANCE[policy])
    layers = plain.get_layer("norm"), fused.get_layer("norm")
    for name in ("moving_mean", "moving_variance"):
        wanted, value = (keras.ops.convert_to_numpy(getattr(layer, name)) for layer in layers)
        close(value, wanted, TOLERANCE[policy])
        start = np.linspace(-0.5, 0.5, 8) if name == "moving_mean" else np.linspace(0.5, 2, 8)
        assert np.allclose(value, start) == (mode != "training")
    assert fused(images).dtype == plain(images).dtype


def test_what_is_saved_is_a_plain_keras_network(tmp_path):
    _, fused = pair("mixed_bfloat16")
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
    fused.save(tmp_path / "network.keras")
    loaded = keras.saving.load_model(tmp_path / "network.keras")
    layer = loaded.get_layer("norm")
    assert type(layer) is keras.layers.BatchNormalization
    assert "call" not in vars(layer)
    np.testing.assert_allclose(loaded(images), fused(images), atol=0.05)


def test_the_unet_is_fused():
    from models import unet  # tests/test_backbones.py tests the classifiers

    norms = [layer for layer in unet(16, 2, 4, batch_norm=True).layers if "BatchNorm" in type(layer).__name__]
    assert norms
    assert all(layer.call.__func__ is fused_call for layer in norms)
